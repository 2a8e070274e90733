use icecore::observe::*; use icecore::ops::Cancel; use icecore::ops::backup::*; use icecore::repo::*; use icecore::store::*;
use std::sync::Arc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let repo_path = std::path::Path::new(&a[1]);
    let imm = a.get(3).map(|s| s == "imm").unwrap_or(false);
    let store: SharedStore = match LocalStore::open(repo_path) { Ok(s) => Arc::new(s), Err(_) => { let s: SharedStore = Arc::new(LocalStore::create(repo_path).unwrap()); Repository::init(&s, &Secret::empty(), "x").unwrap(); s } };
    let cache = format!("{}.cache", a[1]);
    std::fs::create_dir_all(&cache).unwrap();
    let t = std::time::Instant::now();
    let repo = Repository::open(store, &Secret::empty(), std::path::Path::new(&cache)).unwrap();
    let src = if a[2].starts_with("cmd:") { SourceSpec::Command { name: "dump".into(), command: icecore::source::StreamCommand::parse(&a[2][4..]).unwrap() } } else { SourceSpec::Tree(TreeSpec { name: "t".into(), path: a[2].clone().into(), filter: Default::default(), files_from: None, immutable: imm, parent: None }) };
    let obs = Recording::default();
    let r = backup(&repo, BackupOptions::new("h", vec![src]), &obs, &Cancel::new()).unwrap();
    println!("{:?} in {:?}", r, t.elapsed());
    for (n, c) in [("new", Counter::FilesNew), ("changed", Counter::FilesChanged), ("unch", Counter::FilesUnchanged), ("read", Counter::BytesRead), ("bnew", Counter::BytesNew), ("stored", Counter::BytesStored), ("chunks", Counter::ChunksNew), ("meta", Counter::MetadataChunksNew), ("vanished", Counter::Vanished)] { print!("{n}={} ", obs.get(c)); }
    println!(); for p in obs.problems().iter().take(5) { println!("{p}"); }
}
