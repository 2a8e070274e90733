//! The icecore command: parses the command line, runs one operation, prints the result.

mod advice;
mod args;
mod commands;
mod context;
mod env;
mod exit;
mod finish;
mod global;
mod harden;
mod home;
mod hooks;
mod job;
mod opening;
mod parse;
mod secret;
mod signals;
mod ui;

fn main() -> std::process::ExitCode {
    harden::forbid_core_files();
    harden::allow_open_files();
    signals::survive_file_size_limit();
    match args::parse() {
        Ok(cli) => finish::finish(args::run(&cli), cli.global.json),
        Err(error) => finish::finish(Err(error), args::asks_for_json()),
    }
}
