//! Backs up a directory into a local repository, which is made if it is missing, and prints the counts.
//!
//! `ICECORE_PASSPHRASE=… cargo run --example backup -- REPOSITORY CACHE DIRECTORY`

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use icecore::observe::Counters;
use icecore::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use icecore::repo::{RepoError, Repository, Secret};
use icecore::store::{LocalStore, SharedStore};
use icecore::task::{Cancel, Task};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [repository, cache, directory] = arguments.as_slice() else {
        return Err("usage: backup REPOSITORY CACHE DIRECTORY".into());
    };
    let secret = Secret::passphrase(std::env::var("ICECORE_PASSPHRASE")?.into_bytes().into());

    let store: SharedStore = Arc::new(LocalStore::create(repository)?);
    match Repository::init(&store, &secret, "example") {
        Ok(_) | Err(RepoError::AlreadyThere { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let repo = Repository::open(store, &secret, Path::new(cache))?;

    let tree = TreeSpec::new("directory", directory);
    let options = BackupOptions::new("example", vec![SourceSpec::Tree(Box::new(tree))]);
    let report = backup(
        &repo,
        options,
        Task::new(&Counters::default(), &Cancel::new()),
    )?;
    for source in &report.sources {
        println!("{}: {:?}", source.name, source.counts);
    }
    Ok(())
}
