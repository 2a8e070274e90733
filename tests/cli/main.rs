//! The command line as users see it: help texts, messages, JSON and exit codes, compared with the texts of `snapshots/`.
//!
//! Each test plays commands in a directory of its own and compares their output with one text file. Values that change
//! from run to run are masked (`masks`). `ICECORE_BLESS=1` writes the files again.

mod backup;
mod codes;
mod config;
mod config_page;
mod config_show;
mod damage;
mod environment;
mod forget;
mod help;
mod json;
mod json_page;
mod json_samples;
mod keys;
mod masks;
mod node;
mod reading;
mod repository;
mod restore;
mod snapshot;
mod usage;
