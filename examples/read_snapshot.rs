//! Lists the files of a source in the newest snapshot, each with its first bytes. Reads only the
//! chunks that hold these bytes.
//!
//! `ICECORE_PASSPHRASE=… cargo run --example read_snapshot -- REPOSITORY CACHE SOURCE`

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use icecore::observe::Counters;
use icecore::ops::list::{ListDepth, ListedPath, LsItem, ls};
use icecore::read::ReadSession;
use icecore::repo::{HostChoice, Repository, Secret};
use icecore::store::{LocalStore, SharedStore};
use icecore::task::{Cancel, Task};
use icecore::types::{Node, RelPath};

/// Bytes shown of each file.
const SHOWN_BYTES: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [repository, cache, source] = arguments.as_slice() else {
        return Err("usage: read_snapshot REPOSITORY CACHE SOURCE".into());
    };
    let secret = Secret::passphrase(std::env::var("ICECORE_PASSPHRASE")?.into_bytes().into());
    let store: SharedStore = Arc::new(LocalStore::open(repository)?);
    let repo = Repository::open(store, &secret, Path::new(cache))?;

    // The session's lease keeps the packs of the snapshots that are listed from here on.
    let (counters, cancel) = (Counters::default(), Cancel::new());
    let session = ReadSession::open(&repo, Task::new(&counters, &cancel))?;
    let newest = ListedPath {
        snapshot: "latest".into(),
        hosts: HostChoice::Any,
        source: Some(source.clone()),
        path: RelPath::root(),
    };

    let mut buffer = [0; SHOWN_BYTES];
    ls(&session, &newest, ListDepth::Everything, &mut |item| {
        if let LsItem::Entry { entry, .. } = item
            && let Node::File { content, .. } = &entry.node
        {
            let len = session.content_at(content, 0, &mut buffer)?;
            println!("{}: {}", entry.path, buffer[..len].escape_ascii());
        }
        Ok(())
    })?;
    Ok(())
}
