//! Unnamed temporary files whose bytes cannot be read later: each is sealed under a key that only
//! this process has.
//!
//! Spilled data contains names and the contents of small files, including keys. An unnamed file
//! disappears with the process, but its bytes stay on the disk until they are overwritten. Each
//! file has a random key that never leaves memory and is dropped with the reader, so the remaining
//! bytes are noise.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::sys::random::random_bytes;
use crate::types::to_u64;

/// Plain bytes in a sealed block; the last block of a file may be shorter.
const BLOCK_BYTES: usize = 16 << 10;
const TAG_BYTES: usize = 16;
/// Stored bytes of a whole block. A reader's buffer needs at least this much space.
pub(super) const SEALED_BYTES: usize = BLOCK_BYTES + TAG_BYTES;
/// Size of one write.
const WRITE_BUFFER_BYTES: usize = 4 * SEALED_BYTES;

/// The key of one file. A block's nonce is its number, and each number is used once.
struct FileKey(LessSafeKey);

impl FileKey {
    fn draw() -> io::Result<Self> {
        let bytes = Zeroizing::new(random_bytes::<32>()?);
        let key = UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map_err(io::Error::other)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    fn nonce(block: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&block.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Writes a sealed file from its beginning to its end.
pub(super) struct SealedWriter {
    file: File,
    key: FileKey,
    /// Sealed blocks up to `sealed`, then bytes that are not sealed yet, less than a block.
    buffer: Vec<u8>,
    sealed: usize,
    blocks: u64,
    written: u64,
}

/// A complete sealed file, read from its beginning to its end.
pub(super) struct SealedReader {
    file: File,
    key: FileKey,
    /// Bytes in the file.
    len: u64,
    at: u64,
    blocks: u64,
}

impl SealedWriter {
    /// Creates an unnamed file in this directory that only we can read and write.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let file = unnamed_file(directory)?;
        let buffer = Vec::with_capacity(WRITE_BUFFER_BYTES);
        Ok(Self {
            file,
            key: FileKey::draw()?,
            buffer,
            sealed: 0,
            blocks: 0,
            written: 0,
        })
    }

    /// Adds bytes at the end.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - (self.buffer.len() - self.sealed);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() - self.sealed == BLOCK_BYTES {
                self.seal()?;
            }
        }
        Ok(())
    }

    /// Seals the pending bytes as a block. Writes the buffer if no further block fits.
    fn seal(&mut self) -> io::Result<()> {
        let nonce = FileKey::nonce(self.blocks);
        let tag = self.key.0.seal_in_place_separate_tag(
            nonce,
            Aad::empty(),
            &mut self.buffer[self.sealed..],
        );
        self.buffer
            .extend_from_slice(tag.map_err(io::Error::other)?.as_ref());
        self.sealed = self.buffer.len();
        self.blocks += 1;
        if self.buffer.len() + SEALED_BYTES > WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.written += to_u64(self.buffer.len());
        self.buffer.clear();
        self.sealed = 0;
        Ok(())
    }

    /// Ends the file and returns a reader of it.
    pub(super) fn finish(mut self) -> io::Result<SealedReader> {
        if self.buffer.len() > self.sealed {
            self.seal()?;
        }
        self.flush()?;
        Ok(SealedReader {
            file: self.file,
            key: self.key,
            len: self.written,
            at: 0,
            blocks: 0,
        })
    }
}

impl SealedReader {
    /// Returns true if everything was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.len
    }

    /// Reads the next whole blocks into `buffer` at `filled`, as many as fit and at least one.
    /// Returns the new end of the filled part. The buffer grows if it is too small.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end, `InvalidData` if the file was modified.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, filled: usize) -> io::Result<usize> {
        if buffer.len() < filled + SEALED_BYTES {
            buffer.resize(filled + SEALED_BYTES, 0);
        }

        let room = (buffer.len() - filled) / SEALED_BYTES * SEALED_BYTES;
        let left = usize::try_from(self.len - self.at).unwrap_or(usize::MAX);
        let read = room.min(left);
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }

        self.file
            .read_exact_at(&mut buffer[filled..filled + read], self.at)?;
        self.at += to_u64(read);

        let mut plain_end = filled;
        for from in (filled..filled + read).step_by(SEALED_BYTES) {
            let to = (from + SEALED_BYTES).min(filled + read);
            let nonce = FileKey::nonce(self.blocks);
            let opened = self
                .key
                .0
                .open_in_place(nonce, Aad::empty(), &mut buffer[from..to]);
            let len = opened
                .map_err(|_| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        "it does not match the written data",
                    )
                })?
                .len();
            buffer.copy_within(from..from + len, plain_end);
            plain_end += len;
            self.blocks += 1;
        }

        Ok(plain_end)
    }
}

/// Creates an unnamed file that only we can read and write.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match openat(CWD, directory, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => return Ok(fd.into()),
        // File systems without O_TMPFILE (network ones, older FUSE): create a random name and
        // unlink it immediately.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }

    let name = format!(".sort-{:032x}", u128::from_le_bytes(random_bytes()?));
    let path = directory.join(name);
    let fd = openat(
        CWD,
        &path,
        flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW,
        mode,
    )?;
    unlinkat(CWD, &path, AtFlags::empty())?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(reader: &SealedReader) -> Vec<u8> {
        let mut bytes = vec![0; reader.len as usize];
        reader.file.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    }

    fn sealed(parts: &[&[u8]]) -> SealedReader {
        let root = tempfile::tempdir().expect("a directory");
        let mut writer = SealedWriter::create(root.path()).expect("made");
        for part in parts {
            writer.write(part).expect("written");
        }
        writer.finish().expect("finished")
    }

    fn opened(mut reader: SealedReader, room: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while !reader.is_at_end() {
            let mut buffer = vec![0; room];
            let filled = reader.read(&mut buffer, 0)?;
            out.extend_from_slice(&buffer[..filled]);
        }
        Ok(out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn sealed_bytes_round_trip(
            lengths in proptest::collection::vec(0_usize..40_000, 0..8),
            room in 0_usize..100_000,
        ) {
            let parts: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(i, &len)| vec![i as u8; len]).collect();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(opened(sealed(&parts), room).expect("read"), parts.concat());
        }
    }

    #[test]
    fn the_file_holds_no_plain_bytes() {
        let secret = b"-----BEGIN PRIVATE KEY-----";
        let reader = sealed(&[&secret.repeat(3000)]);
        let bytes = stored(&reader);
        assert!(bytes.len() > 4 * SEALED_BYTES);
        assert!(!bytes.windows(8).any(|window| window == &secret[..8]));
        // The same content under another key.
        assert_ne!(stored(&sealed(&[&secret.repeat(3000)]))[..64], bytes[..64]);
    }

    #[test]
    fn a_changed_or_moved_block_is_an_error() {
        let content = vec![7; 3 * BLOCK_BYTES];
        for at in [0, BLOCK_BYTES, SEALED_BYTES, 2 * SEALED_BYTES + 5] {
            let reader = sealed(&[&content]);
            let byte = stored(&reader)[at];
            reader
                .file
                .write_all_at(&[byte ^ 1], at as u64)
                .expect("changed");
            assert_eq!(
                opened(reader, 0).expect_err("changed").kind(),
                io::ErrorKind::InvalidData,
                "{at}"
            );
        }
        let reader = sealed(&[&content]);
        let bytes = stored(&reader);
        reader
            .file
            .write_all_at(&bytes[SEALED_BYTES..2 * SEALED_BYTES], 0)
            .expect("moved");
        assert_eq!(
            opened(reader, 0).expect_err("moved").kind(),
            io::ErrorKind::InvalidData
        );
    }
}
