//! Replays the seeds and the findings of the fuzz targets, by the same rules (`judge.rs`).

mod judge;
mod seeds;
mod values;

use std::path::{Path, PathBuf};

fn files(directory: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let Ok(listed) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = listed.map(|file| file.expect("lists").path());
    paths
        .map(|path| (path.clone(), std::fs::read(path).expect("reads")))
        .collect()
}

/// `ICECORE_WRITE_SEEDS=1` rewrites the files after a change of the format.
#[test]
fn the_seeds_match_the_encoders_and_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let write = std::env::var_os("ICECORE_WRITE_SEEDS").is_some();
    for (target, judge) in judge::TARGETS {
        let mut seen = 0;
        for (name, bytes) in seeds::all()
            .into_iter()
            .filter(|seed| seed.0 == target)
            .map(|(_, n, b)| (n, b))
        {
            seen += 1;
            assert!(judge(&bytes), "{target}/{name}");
            let path = root.join(target).join(name);
            if write {
                std::fs::create_dir_all(root.join(target)).expect("makes the directory");
                std::fs::write(&path, &bytes).expect("writes");
            }
            assert_eq!(
                std::fs::read(&path).ok(),
                Some(bytes),
                "{} is not what is encoded now",
                path.display()
            );
        }
        assert!(seen > 0, "{target} has no seed");
    }
}

/// Replays the findings of the fuzz targets; each file name describes one.
#[test]
fn findings_of_the_fuzz_targets_stay_fixed() {
    for (target, judge) in judge::TARGETS {
        for (path, bytes) in files(&format!("tests/fuzz/found/{target}")) {
            let outcome = std::panic::catch_unwind(|| judge(&bytes));
            assert!(outcome.is_ok(), "{}", path.display());
        }
    }
}

/// Cuts every seed at every place and flips every bit: accepted or refused, the rules hold.
#[test]
fn cut_and_flipped_seeds_keep_the_rules() {
    let mut refused = 0;
    for (target, name, bytes) in seeds::all() {
        let judge = judge::TARGETS
            .iter()
            .find(|(name, _)| *name == target)
            .expect("known")
            .1;
        for end in 0..bytes.len() {
            refused += usize::from(!judge(&bytes[..end]));
        }
        let mut bad = bytes.clone();
        for bit in 0..bytes.len() * 8 {
            bad[bit / 8] ^= 1 << (bit % 8);
            refused += usize::from(!judge(&bad));
            bad[bit / 8] = bytes[bit / 8];
        }
        assert!(judge(&bad), "{target}/{name} is as it was");
    }
    assert!(refused > 1000, "{refused}");
}
