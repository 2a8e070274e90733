//! Sources of backups.

use std::io::Cursor;

use crate::ops::backup::{BackupOptions, CommandSpec, SourceSpec, TreeSpec};
use crate::source::StreamCommand;

/// Returns the options of a backup of one tree.
pub fn tree_options(tree: TreeSpec) -> BackupOptions {
    BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(tree))])
}

/// Returns the output of a command as a source, the command as a user would write it.
///
/// # Panics
///
/// If the command cannot be split into words.
pub fn command_source(name: &str, command: &str) -> SourceSpec {
    let command = StreamCommand::parse(command).expect("words");
    SourceSpec::Command(Box::new(CommandSpec::new(name, command)))
}

/// Returns bytes as a source, like those of standard input.
pub fn stream_source(name: &str, bytes: &[u8]) -> SourceSpec {
    SourceSpec::Stream {
        name: name.into(),
        input: Box::new(Cursor::new(bytes.to_vec())),
    }
}
