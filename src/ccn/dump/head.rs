//! Reads the first part of a cluster's dump: the databases that the dump restores, and the version
//! of the server that was dumped.

use std::io::{self, Write};

use super::lexer::{DumpLexer, LineContext};
use super::name::SqlName;
use crate::advice::DumpReader;
use crate::ccn::postgres::PostgresVersion;
use crate::types::to_u64;

/// Upper limit of the bytes to search for the end of the first part.
const HEAD_BYTES_MAX: u64 = 16 << 20;
/// Upper limit of the lines to look at, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The first part of a dump, up to the first connection to one of its databases.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DumpHead {
    /// True if `pg_dumpall` wrote the dump.
    pub is_cluster: bool,
    /// The kind of the stream.
    pub kind: DumpKind,
    /// Databases that the dump drops and creates again, except `postgres` and `template1`.
    pub databases: Vec<String>,
    /// The version of the server that was dumped.
    pub version: Option<PostgresVersion>,
}

/// The kind of a stream, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DumpKind {
    /// Text, or anything else.
    #[default]
    Other,
    /// A dump of one database, as text.
    Plain,
    /// A dump of one database, in a format of `pg_restore`.
    Archive,
    /// A compressed stream, with the program that decompresses it.
    Packed(&'static str),
}

impl DumpKind {
    fn of(first: &[u8]) -> Self {
        match first {
            [b'P', b'G', b'D', b'M', b'P', ..] => Self::Archive,
            [0x1f, 0x8b, ..] => Self::Packed("gzip"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Packed("zstd"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Packed("xz"),
            [b'B', b'Z', b'h', ..] => Self::Packed("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Packed("lz4"),
            _ => Self::Other,
        }
    }

    /// Returns text to append to "it is not the dump of a cluster".
    pub fn what(self) -> String {
        match self {
            Self::Other => String::new(),
            Self::Plain => ", but a dump of one database by pg_dump".to_owned(),
            Self::Archive => ", but a dump of one database by pg_dump, for pg_restore".to_owned(),
            Self::Packed(program) => format!(", but compressed with {program}"),
        }
    }

    /// Returns the program that restores the dump by hand.
    pub fn reader(self) -> DumpReader {
        match self {
            Self::Other => DumpReader::Unknown,
            Self::Plain => DumpReader::Psql,
            Self::Archive => DumpReader::PgRestore,
            Self::Packed(program) => DumpReader::Decompressed(program),
        }
    }
}

/// Takes a dump's bytes until the first part ends. After that, writing fails because no more bytes
/// are needed.
#[derive(Debug, Default)]
pub struct HeadReader {
    lexer: DumpLexer,
    line: Vec<u8>,
    read: u64,
    is_done: bool,
    head: DumpHead,
}

impl HeadReader {
    /// Creates a reader for the beginning of a dump.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns true if a write failed only because no more bytes are needed.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns the first part.
    pub fn into_head(self) -> DumpHead {
        self.head
    }

    fn line(&mut self) {
        let line = self.line.trim_ascii_end();
        if line.starts_with(b"\\connect") {
            self.is_done = true;
        } else if line == b"-- PostgreSQL database cluster dump" {
            self.head.is_cluster = true;
        } else if line == b"-- PostgreSQL database dump" && !self.head.is_cluster {
            self.head.kind = DumpKind::Plain;
        } else if let Some(version) = line.strip_prefix(b"-- Dumped from database version ") {
            let version = PostgresVersion::parse(&String::from_utf8_lossy(version));
            self.head.version = self.head.version.or(version);
        } else if let Some(statement) = line.strip_prefix(b"DROP DATABASE ")
            && let Some(name) = statement.strip_suffix(b";")
        {
            let name = name.strip_prefix(b"IF EXISTS ").unwrap_or(name);
            let name = SqlName::parse(name)
                .map(|name| String::from_utf8_lossy(&name.plain()).into_owned());
            let is_own = |name: &String| name != "postgres" && name != "template1";
            self.head.databases.extend(name.filter(is_own));
        }
    }
}

impl Write for HeadReader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.read == 0 {
            self.head.kind = DumpKind::of(bytes);
        }
        let mut rest = bytes;
        while !self.is_done
            && let Some(piece) = self.lexer.next(&mut rest)
        {
            if piece.place != LineContext::Between {
                continue;
            }
            if piece.starts {
                self.line.clear();
            }
            if self.line.len() < LINE_BYTES_MAX {
                self.line.extend_from_slice(piece.bytes);
            }
            if piece.ends {
                self.line();
            }
        }

        self.read += to_u64(bytes.len());
        self.is_done |= self.read >= HEAD_BYTES_MAX;
        if self.is_done {
            Err(io::Error::other("enough was read"))
        } else {
            Ok(bytes.len())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "--\n-- PostgreSQL database cluster dump\n--\n\\restrict k\nDROP DATABASE \"My \"\"db\";\nDROP DATABASE IF EXISTS aleph;\n/*\nDROP DATABASE no;\n*/\n\\unrestrict k\n\\restrict l\n-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)\nDROP DATABASE template1;\n\\unrestrict l\n\\connect template1\nDROP DATABASE later;\n";

    #[test]
    fn the_first_part_is_read_and_no_more() {
        for step in [1, 7, usize::MAX] {
            let mut reader = HeadReader::new();
            let mut parts = DUMP.as_bytes().chunks(step.min(DUMP.len()));
            assert!(parts.any(|part| reader.write_all(part).is_err()));
            assert!(reader.is_done());
            let head = reader.into_head();
            assert_eq!(head.databases, ["My \"db", "aleph"]);
            assert_eq!(
                head.version,
                Some(PostgresVersion {
                    major: 15,
                    minor: 18
                })
            );
            assert!(head.is_cluster);
        }
    }

    #[test]
    fn other_kinds_of_dump_are_recognized_by_their_start() {
        let kind = |bytes: &[u8]| {
            let mut reader = HeadReader::new();
            let _ = reader.write_all(bytes);
            reader.into_head().kind
        };
        assert_eq!(kind(b"PGDMP\x01\x0e\0"), DumpKind::Archive);
        assert_eq!(kind(b"\x1f\x8b\x08\0"), DumpKind::Packed("gzip"));
        assert_eq!(
            kind(b"--\n-- PostgreSQL database dump\n--\n"),
            DumpKind::Plain
        );
        assert_eq!(kind(DUMP.as_bytes()), DumpKind::Other);
        assert_eq!(DumpKind::Archive.reader(), DumpReader::PgRestore);
    }

    #[test]
    fn other_input_is_recognized_without_reading_it_all() {
        let mut reader = HeadReader::new();
        let rows = vec![b'x'; 1 << 20];
        let count = (0..100)
            .take_while(|_| reader.write_all(&rows).is_ok())
            .count();
        assert!(count < 17 && reader.is_done() && !reader.into_head().is_cluster);
    }
}
