//! Output for people and programs: data and JSON lines on standard output, everything else on
//! standard error.

pub mod json;
pub mod lacking;
mod output;
pub mod progress;
pub mod prometheus;
pub mod text;

pub use self::output::{DataWriter, Ui};
pub use self::progress::Meter;
