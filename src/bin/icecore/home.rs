//! The home directory, and paths that may begin with it.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Returns the home directory, if `HOME` names one.
pub fn home() -> Option<PathBuf> {
    env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute())
}

/// Reads a path that no shell may have expanded: a leading `~/` is the home directory. Refuses
/// another user's home and variables, which only a shell can expand.
pub fn path(text: &OsStr) -> Result<PathBuf, String> {
    let bytes = text.as_bytes();
    match bytes {
        [] => Err("empty path".to_owned()),
        [b'~'] | [b'~', b'/', ..] => {
            let home = home().ok_or("cannot expand '~': HOME is not set to an absolute path")?;
            // With more slashes the rest would be an absolute path.
            let below = bytes[1..]
                .iter()
                .position(|&byte| byte != b'/')
                .map(|at| &bytes[1 + at..]);
            Ok(below.map_or_else(|| home.clone(), |below| home.join(OsStr::from_bytes(below))))
        }
        [b'~', ..] => Err(format!(
            "'{0}' begins with another user's home directory, which is not looked up: write the absolute path, or ./{0} for a file of that name",
            text.to_string_lossy()
        )),
        [b'$', b'{' | b'_' | b'a'..=b'z' | b'A'..=b'Z', ..] => Err(format!(
            "'{0}' begins with a variable, which is not expanded here: write the absolute path, or ./{0} for a file of that name",
            text.to_string_lossy()
        )),
        _ => Ok(PathBuf::from(text)),
    }
}
