//! Operations as the configuration describes them, from settings to a report.
//!
//! The command line is one front end of this layer. It keeps arguments, the terminal, texts and exit
//! codes.

pub mod config;
pub mod parse;
pub mod report;
