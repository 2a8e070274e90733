//! `icecore undelete`

use icecore::jobs::report::UndeleteSummary;
use icecore::ops::forget::undelete;
use icecore::task::Task;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;

/// Bring a forgotten snapshot back
///
/// This works until a prune frees the snapshot's data. The snapshot comes back with its content,
/// time and tags, under a new id.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore snapshots --forgotten
  icecore undelete 4f1c9a02")]
pub struct UndeleteArgs {
    /// Id, or its first digits, as 'snapshots --forgotten' shows it
    #[arg(value_name = "SNAP", value_parser = id)]
    snap: String,
}

fn id(text: &str) -> Result<String, String> {
    match text {
        "latest" => Err("give an id; 'icecore snapshots --forgotten' lists them".to_owned()),
        _ => parse::snap(text),
    }
}

pub fn run(context: &Context<'_>, args: &UndeleteArgs) -> Result<Outcome, CliError> {
    let (repository, meter, cancel) = context.begin()?;
    let done = undelete(&repository, &args.snap, Task::new(&meter, &cancel))?;
    let summary = UndeleteSummary::from(&done);
    Ok(meter.finish("undelete", Outcome::Done, &summary, || {
        vec![format!(
            "snapshot {} is back as {}",
            done.from.short(),
            done.id.short()
        )]
    }))
}
