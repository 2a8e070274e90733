//! `icecore tag`

use icecore::jobs::report::{TagRecord, TagSummary};
use icecore::ops::tag::{RetaggedSnapshot, TagChange, retag};
use icecore::task::Task;

use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::text;

/// Change the tags of snapshots, or protect them
///
/// A snapshot with changed tags is a new one that replaces the old: its content and time stay, its
/// id changes. No policy forgets a protected snapshot, and 'forget' refuses to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore tag latest --add before-upgrade --protect
  icecore tag 4f1c9a02 b77e01d3 --remove nightly
  icecore tag 4f1c9a02 --unprotect")]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct TagArgs {
    /// Snapshots to change: ids, prefixes of ids, or 'latest'
    #[arg(value_name = "SNAP", required = true, value_parser = parse::snap)]
    snaps: Vec<String>,
    /// Add this tag (can be repeated)
    #[arg(long, value_name = "TAG", group = "change", value_parser = parse::tag)]
    add: Vec<String>,
    /// Remove this tag (can be repeated)
    #[arg(long, value_name = "TAG", group = "change", value_parser = parse::old_tag)]
    remove: Vec<String>,
    /// Replace all tags by these; '' for none
    #[arg(long, value_name = "TAG", group = "change", value_parser = parse::tag_or_none)]
    set: Option<Vec<String>>,
    /// Keep the snapshot, regardless of any policy
    #[arg(long, group = "change", conflicts_with = "unprotect")]
    protect: bool,
    /// Let policies and 'forget' remove the snapshot again
    #[arg(long, group = "change")]
    unprotect: bool,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(context: &Context<'_>, args: &TagArgs) -> Result<Outcome, CliError> {
    let set = args
        .set
        .as_ref()
        .map(|tags| tags.iter().filter(|tag| !tag.is_empty()).cloned().collect());
    let protect = (args.protect || args.unprotect).then_some(args.protect);
    let change = TagChange {
        set,
        add: args.add.clone(),
        remove: args.remove.clone(),
        protect,
    };

    if let Some(both) = args.remove.iter().find(|tag| args.add.contains(tag)) {
        return Err(CliError::usage(format!(
            "the tag '{both}' is both added and removed"
        )));
    }

    let (repository, mut meter, cancel) = context.begin()?;
    let hosts = args.hosts.choice(context)?;
    let done = retag(
        &repository,
        &args.snaps,
        &hosts,
        &change,
        Task::new(&meter, &cancel),
    )?;

    meter.end();
    if context.ui.json {
        let mut out = context.ui.data()?;
        for one in &done {
            out.object(&TagRecord::from(one))?;
        }
        out.finish()?;
    }

    let summary = TagSummary::from(&done[..]);
    Ok(meter.finish("tag", Outcome::Done, &summary, || {
        done.iter().map(line).collect()
    }))
}

fn line(one: &RetaggedSnapshot) -> String {
    let tags = if one.tags.is_empty() {
        "no tags".to_owned()
    } else {
        format!("tags {}", one.tags.join(" "))
    };
    let tags = text::clean(&tags);
    let protected = if one.protected { ", protected" } else { "" };
    match one.id {
        Some(id) => format!(
            "snapshot {} was replaced by {}: {tags}{protected}",
            one.from.short(),
            id.short()
        ),
        None => format!(
            "snapshot {} is unchanged: {tags}{protected}",
            one.from.short()
        ),
    }
}
