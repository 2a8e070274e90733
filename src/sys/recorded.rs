//! The one spelling of a path, by which a directory is known later.

use std::path::{Component, Path, PathBuf};

/// The path by which a tree is recorded: absolute, without `.`, `..` and doubled slashes. A
/// symbolic link on the way keeps its name, unless `..` follows: what that leads to, the file
/// system alone knows.
pub fn recorded_path(path: &Path) -> PathBuf {
    let Ok(full) = std::path::absolute(path) else {
        return path.to_owned();
    };
    let full = match full.components().any(|one| one == Component::ParentDir) {
        true => std::fs::canonicalize(&full).unwrap_or(full),
        false => full,
    };
    // Without a trailing slash.
    full.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_paths_are_absolute_and_plain() {
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(recorded_path(Path::new("a//b/./c/")), here.join("a/b/c"));
        assert_eq!(recorded_path(Path::new("/")), Path::new("/"));
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("there");
        std::fs::create_dir_all(dir.join("real/x")).expect("made");
        std::os::unix::fs::symlink(dir.join("real/x"), dir.join("link")).expect("linked");
        assert_eq!(recorded_path(&dir.join("link")), dir.join("link"));
        assert_eq!(recorded_path(&dir.join("link/../x")), dir.join("real/x"));
    }
}
