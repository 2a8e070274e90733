//! Files for tests, and their contents.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Returns incompressible bytes, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Writes a file, and creates the directories above it.
///
/// # Panics
///
/// If the file cannot be written.
pub fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("has a parent")).expect("directories");
    fs::write(path, content).expect("written");
}

/// Waits until files written just now are older than a grain of 2 seconds, which
/// [`BackupOptions::grain_seconds`](crate::ops::backup::BackupOptions::grain_seconds) can set.
pub fn settle() {
    std::thread::sleep(Duration::from_millis(2100));
}
