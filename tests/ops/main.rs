//! Operations through the library, with a module for each theme. One binary, since each binary links
//! the whole library again.
//!
//! A test that changes process-wide state (signals, limits, the umask, the current directory,
//! environment variables) needs a binary of its own, since the tests of one binary run at the same
//! time.

mod backup;
mod capture;
mod checkpoints;
mod doubt;
mod emptied;
mod partial;
mod stops;
