//! The canonical spelling of a path, which identifies a directory later.

use std::path::{Component, Path, PathBuf};

/// Returns the path under which a tree is recorded: absolute, without `.`, `..` and doubled
/// slashes. A symlink in the path keeps its name unless the path has a `..`: only the file system
/// knows where that leads.
pub fn recorded_path(path: &Path) -> PathBuf {
    let Ok(full) = std::path::absolute(path) else {
        return path.to_owned();
    };
    let full = if full.components().any(|one| one == Component::ParentDir) {
        std::fs::canonicalize(&full).unwrap_or(full)
    } else {
        full
    };
    // Collecting the components removes a trailing slash.
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
