//! `icecore forget`

use std::collections::BTreeSet;
use std::time::Duration;

use icecore::Error;
use icecore::jobs::report::{DecisionRecord, ForgetSummary};
use icecore::observe::Severity;
use icecore::ops::forget::{
    ForgetDecision, ForgetOptions, ForgetReport, GroupBy, Period, PeriodSlots, Policy,
    forget_by_policy, forget_named,
};
use icecore::ops::list::SnapshotFilter;
use icecore::ops::prune::PruneReport;
use icecore::repo::Repository;
use icecore::task::{Cancel, Task};
use jiff::tz::TimeZone;

use super::nothing::report_nothing;
use super::prune;
use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::{Meter, text};

/// Forget snapshots, by name or by a policy
///
/// Forgets the snapshots that no rule keeps. Snapshots of the same host, set of sources and paths
/// are judged together, in the local time zone. Of each period the newest snapshot is kept; periods
/// without a snapshot do not count. Forgetting frees no space: 'prune' does that later. Until then
/// 'undelete' brings a snapshot back, except over a network mount.
///
/// Snapshots have three ranks: complete, incomplete, and suspect (with a suspect source). A
/// snapshot never takes the place of one of a higher rank. It is kept in addition if its period has
/// no better one, or if nothing better is newer. The last good capture of a source that has been
/// suspect since is always kept. Protected snapshots are always kept and take no slot. Checkpoints
/// and snapshots from the future are kept and do not count.
///
/// As a safeguard against a wrong policy or clock, a group is left as it is without --force if it
/// would lose more than half of its snapshots and more than two thirds of its days, if nothing of
/// it would stay, or if its times contradict each other. Everything else is done, and the exit code
/// is 1, with --dry-run too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore forget --keep-hourly 48 --keep-daily 14 --keep-weekly 8 --keep-monthly all --dry-run
  icecore forget --keep-within 30d --keep-within-monthly 1y --keep-tag release --host web1
  icecore forget --keep-daily 14 --keep-monthly all --prune
  icecore forget 4f1c9a02 b77e01d3")]
pub struct ForgetArgs {
    /// Forget these snapshots: ids, prefixes of ids, or 'latest'
    #[arg(value_name = "SNAP", value_parser = parse::snap, conflicts_with_all = ["rules", "group_by", "tag", "source", "force"])]
    snaps: Vec<String>,

    #[command(flatten)]
    keep: KeepOptions,

    /// Judge only snapshots of this host (default: all hosts, or with [retention] of icecore.toml
    /// only its own host); with SNAP: the host that 'latest' refers to
    #[arg(long, value_name = "HOST", help_heading = "Selection", conflicts_with = "any_host", value_parser = parse::host)]
    host: Option<String>,
    /// Judge snapshots of all hosts by [retention] too; with SNAP: 'latest' is the newest of any
    /// host
    #[arg(long, help_heading = "Selection")]
    any_host: bool,
    /// Judge only snapshots with this tag (can be repeated)
    #[arg(long, value_name = "TAG", help_heading = "Selection", value_parser = parse::tag)]
    tag: Vec<String>,
    /// Judge only snapshots with a source of this name
    #[arg(long, value_name = "NAME", help_heading = "Selection")]
    source: Option<String>,
    /// Properties that snapshots judged together share: host, sources (the set of names), paths
    /// (the names, each tree's path and each stream's program), tags, or none (default: host,paths;
    /// with [retention], the sources of icecore.toml are compared by name alone)
    #[arg(long, value_name = "WHAT", value_parser = group_by, help_heading = "Selection")]
    group_by: Option<GroupBy>,

    /// Forget even if a group would lose most of its snapshots and days
    #[arg(long)]
    force: bool,
    /// Run 'prune' afterwards, with its usual grace
    #[arg(long)]
    prune: bool,
    /// Show which snapshots would be kept and dropped, and why; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// The rules of a policy. A snapshot that no rule keeps is dropped.
#[derive(Debug, clap::Args)]
#[group(id = "rules", multiple = true)]
#[command(
    next_help_heading = "Retention rules (N is a number or 'all'; SPAN is for example 36h, 30d, 8w, 6mo or 1y)"
)]
struct KeepOptions {
    /// The newest N
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse::slots)]
    keep_last: Option<PeriodSlots>,
    /// The newest of each of the last N hours that have a snapshot
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse::slots)]
    keep_hourly: Option<PeriodSlots>,
    /// The newest of each of the last N days that have a snapshot
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse::slots)]
    keep_daily: Option<PeriodSlots>,
    /// The newest of each of the last N weeks (Monday to Sunday) that have a snapshot
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse::slots)]
    keep_weekly: Option<PeriodSlots>,
    /// The newest of each of the last N months that have a snapshot
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse::slots)]
    keep_monthly: Option<PeriodSlots>,
    /// The newest of each of the last N years that have a snapshot
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse::slots)]
    keep_yearly: Option<PeriodSlots>,
    /// All that are less than SPAN older than the newest complete one
    #[arg(long, value_name = "SPAN", value_parser = parse::retention_span)]
    keep_within: Option<Duration>,
    /// The newest of each hour within SPAN
    #[arg(long, value_name = "SPAN", value_parser = parse::retention_span)]
    keep_within_hourly: Option<Duration>,
    /// The newest of each day within SPAN
    #[arg(long, value_name = "SPAN", value_parser = parse::retention_span)]
    keep_within_daily: Option<Duration>,
    /// The newest of each week within SPAN
    #[arg(long, value_name = "SPAN", value_parser = parse::retention_span)]
    keep_within_weekly: Option<Duration>,
    /// The newest of each month within SPAN
    #[arg(long, value_name = "SPAN", value_parser = parse::retention_span)]
    keep_within_monthly: Option<Duration>,
    /// The newest of each year within SPAN
    #[arg(long, value_name = "SPAN", value_parser = parse::retention_span)]
    keep_within_yearly: Option<Duration>,
    /// All with this tag (can be repeated)
    #[arg(long, value_name = "TAG", value_parser = parse::tag)]
    keep_tag: Vec<String>,
}

fn group_by(text: &str) -> Result<GroupBy, String> {
    let mut by = GroupBy {
        host: false,
        sources: false,
        paths: false,
        tags: false,
    };
    if text.trim() == "none" {
        return Ok(by);
    }
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        match word {
            "host" => by.host = true,
            "sources" => by.sources = true,
            "paths" => by.paths = true,
            "tags" => by.tags = true,
            _ => {
                return Err(format!(
                    "'{word}' is not one of host, sources, paths, tags; 'none' cannot be combined"
                ));
            }
        }
    }
    Ok(by)
}

impl KeepOptions {
    fn policy(&self) -> Policy {
        // As in restic, a rule of zero is not set.
        let set = |slots: Option<PeriodSlots>| slots.filter(|&slots| slots != PeriodSlots::Some(0));
        let span = |span: Option<Duration>| span.filter(|span| !span.is_zero());

        let counted = [
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        let timed = [
            self.keep_within_hourly,
            self.keep_within_daily,
            self.keep_within_weekly,
            self.keep_within_monthly,
            self.keep_within_yearly,
        ];

        let periods = Period::ALL.into_iter();
        Policy {
            last: set(self.keep_last),
            periods: periods
                .clone()
                .zip(counted)
                .filter_map(|(p, n)| Some((p, set(n)?)))
                .collect(),
            within: span(self.keep_within),
            periods_within: periods
                .zip(timed)
                .filter_map(|(p, time)| Some((p, span(time)?)))
                .collect(),
            tags: self.keep_tag.clone(),
        }
    }
}

impl ForgetArgs {
    /// Runs a prune after the snapshots are forgotten, if --prune was given. Returns `None` for a
    /// dry run: it has forgotten nothing, so a prune would have nothing to report about it.
    fn prune_now(
        &self,
        context: &Context<'_>,
        repository: &Repository,
        meter: &Meter,
        cancel: &Cancel,
    ) -> Result<Option<PruneReport>, CliError> {
        if !self.prune || self.dry_run {
            return Ok(None);
        }
        let options = prune::options(context.config()?);
        Ok(Some(icecore::ops::prune::prune(
            repository,
            &options,
            Task::new(meter, cancel),
        )?))
    }
}

/// Returns the line for people. `comes_back`: a forgotten snapshot can be brought back over this
/// store.
fn summary_line(summary: &ForgetSummary, comes_back: bool) -> String {
    let dropped = text::counted(summary.dropped, "snapshot", "snapshots");
    if summary.dry_run {
        format!(
            "{dropped} would be forgotten, {} kept",
            text::number(summary.kept)
        )
    } else if summary.dropped == 0 {
        "nothing to forget".to_owned()
    } else {
        format!(
            "{dropped} forgotten, {} kept; 'icecore prune' frees the space, {}",
            text::number(summary.kept),
            if comes_back {
                "'icecore undelete' brings them back until then"
            } else {
                "until then they can be brought back on the machine that has the disk, not over this mount"
            }
        )
    }
}

pub fn run(context: &Context<'_>, args: &ForgetArgs) -> Result<Outcome, CliError> {
    let given = args.keep.policy();
    // Rules on the command line replace all rules of the configuration. The latter apply only to
    // the file's own host: another host that shares the repository has its own file, and perhaps
    // other rules.
    let (policy, host, by_name) = if given.is_empty() {
        let config = context.config()?;
        // The file gives these sources their names, so their history continues at another path.
        let names: BTreeSet<String> = config
            .sources
            .iter()
            .map(|source| source.name.clone())
            .collect();
        (config.retention.clone(), Some(context.host()?), names)
    } else {
        (given, None, BTreeSet::new())
    };

    // The command line overrides the configuration.
    let by_name = if args.group_by.is_some() {
        BTreeSet::new()
    } else {
        by_name
    };
    let host = if args.any_host {
        None
    } else {
        args.host.clone().or(host)
    };

    if args.snaps.is_empty() && policy.is_empty() {
        return Err(CliError::usage("no retention rules and no snapshots given")
            .with_hint("set [retention] in icecore.toml, or use for example 'icecore forget --keep-daily 7 --keep-weekly 4 --dry-run'"));
    }

    if !args.snaps.is_empty() {
        return named(context, args);
    }

    let filter = SnapshotFilter {
        host,
        tags: args.tag.clone(),
        source: args.source.clone(),
    };
    by_policy(
        context,
        args,
        ForgetOptions {
            policy,
            filter,
            group_by: args.group_by.unwrap_or_default(),
            by_name,
            zone: TimeZone::system(),
            force: args.force,
            dry_run: args.dry_run,
        },
    )
}

fn named(context: &Context<'_>, args: &ForgetArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let hosts = HostArgs {
        host: args.host.clone(),
        any_host: args.any_host,
    }
    .choice(context)?;

    let found = forget_named(&repository, &args.snaps, &hosts, args.dry_run, &meter)?;

    let pruned = args.prune_now(context, &repository, &meter, &cancel)?;
    meter.end();

    let mut out = context.ui.data()?;
    if context.ui.json {
        for one in &found {
            out.object(&DecisionRecord::new(one, "drop", vec!["named".to_owned()]))?;
        }
    }
    out.finish()?;

    let dropped = found.len() as u64;
    let prune = pruned.as_ref().map(prune::summary);
    let summary = ForgetSummary {
        dry_run: args.dry_run,
        kept: 0,
        dropped,
        refused: 0,
        prune,
    };

    let elapsed = text::span(meter.elapsed());
    Ok(meter.finish("forget", Outcome::Done, &summary, || {
        let verb = if args.dry_run {
            "would be forgotten"
        } else {
            "forgotten"
        };

        let mut lines: Vec<String> = found
            .iter()
            .map(|one| format!("snapshot {} {verb}", one.id.short()))
            .collect();
        lines.extend(
            pruned
                .iter()
                .flat_map(|report| prune::lines(report, &elapsed)),
        );
        lines
    }))
}

fn by_policy(
    context: &Context<'_>,
    args: &ForgetArgs,
    options: ForgetOptions,
) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let report = forget_by_policy(&repository, &options, Task::new(&meter, &cancel))?;

    if report.kept == 0 && report.dropped == 0 {
        report_nothing(&repository, &options.filter, Severity::Warning, &meter)?;
    }

    let pruned = args.prune_now(context, &repository, &meter, &cancel)?;
    meter.end();
    print_decisions(context, &report)?;

    let summary = ForgetSummary {
        dry_run: args.dry_run,
        kept: report.kept,
        dropped: report.dropped,
        refused: report.refused.len() as u64,
        prune: pruned.as_ref().map(prune::summary),
    };

    // Refused groups are an error. The rest was done, so print the summary first.
    let refused = refused(&report);
    let outcome = if refused.is_some() {
        Outcome::Refused
    } else {
        Outcome::Done
    };

    let elapsed = text::span(meter.elapsed());
    let outcome = meter.finish("forget", outcome, &summary, || {
        let comes_back = repository.store().properties().strong_listing;
        let mut lines = vec![summary_line(&summary, comes_back)];
        lines.extend(
            pruned
                .iter()
                .flat_map(|report| prune::lines(report, &elapsed)),
        );
        lines
    });

    match refused {
        Some(error) => Err(error.into()),
        None => Ok(outcome),
    }
}

/// Returns one error that names the groups that were left as they are, and why. Returns `None` if
/// there are none.
fn refused(report: &ForgetReport) -> Option<Error> {
    let groups: Vec<String> = report.refused.iter().map(ToString::to_string).collect();
    let why = match groups.as_slice() {
        [] => return None,
        [one] => format!("1 group was left alone: {one}"),
        all => format!("{} groups were left alone: {}", all.len(), all.join("; ")),
    };
    let hint = "check the policy and the clock; --dry-run shows each decision and its reasons; --force forgets them";
    Some(Error::Refused {
        why,
        advice: hint.into(),
    })
}

fn print_decisions(context: &Context<'_>, report: &ForgetReport) -> Result<(), CliError> {
    let mut out = context.ui.data()?;
    let reasons = |one: &ForgetDecision| {
        one.reasons
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };

    for group in &report.groups {
        let dropped = if report.is_refused(&group.key) {
            "refused"
        } else {
            "drop"
        };
        let action = |one: &ForgetDecision| if one.keep { "keep" } else { dropped };
        if context.ui.json {
            for one in &group.decisions {
                out.object(&DecisionRecord::new(&one.found, action(one), reasons(one)))?;
            }
            continue;
        }

        out.line(format_args!("{}:", text::clean(&group.key.to_string())))?;
        let mut table = text::Table::new(&["", "id", "time", "state", "why"]);
        for one in &group.decisions {
            table.row([
                action(one).to_owned(),
                one.found.id.short(),
                text::when(one.found.time()),
                one.found.snapshot.state.to_string(),
                reasons(one).join(", "),
            ]);
        }
        for line in table.lines() {
            out.line(line)?;
        }
    }

    out.finish()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        args: ForgetArgs,
    }

    fn args(words: &[&str]) -> Result<ForgetArgs, clap::Error> {
        Words::try_parse_from([&["forget"], words].concat()).map(|words| words.args)
    }

    #[test]
    fn rules_become_a_policy_and_zero_is_none() {
        let words = [
            "--keep-last",
            "3",
            "--keep-daily",
            "all",
            "--keep-hourly",
            "0",
            "--keep-within",
            "1d",
        ];
        let policy = args(&words).expect("good words").keep.policy();

        assert_eq!(policy.last, Some(PeriodSlots::Some(3)));
        assert_eq!(policy.periods, [(Period::Day, PeriodSlots::All)]);
        assert_eq!(policy.within, Some(Duration::from_secs(86_400)));

        let year = args(&["--keep-within-yearly", "2y"])
            .expect("good words")
            .keep
            .policy();
        assert_eq!(
            year.periods_within,
            [(Period::Year, Duration::from_secs(2 * 365 * 86_400))]
        );

        assert!(
            args(&["--keep-last", "0"])
                .expect("good words")
                .keep
                .policy()
                .is_empty()
        );
        assert!(
            args(&["--keep-within", "0d"])
                .expect("good words")
                .keep
                .policy()
                .is_empty()
        );

        assert!(args(&["--keep-last", "some"]).is_err() && args(&["--keep-last", "-2"]).is_err());
        // restic and borg accept these values.
        let all = args(&["--keep-last", "-1", "--keep-daily", "unlimited"])
            .expect("good words")
            .keep
            .policy();
        assert_eq!(
            (all.last, all.periods),
            (
                Some(PeriodSlots::All),
                vec![(Period::Day, PeriodSlots::All)]
            )
        );
    }

    /// restic's manual has this policy. In restic `m` is a month, elsewhere a minute.
    #[test]
    fn a_rule_in_minutes_or_months_is_refused() {
        for option in ["", "-hourly", "-daily", "-weekly", "-monthly", "-yearly"] {
            let error = args(&[&format!("--keep-within{option}"), "1m"])
                .expect_err("ambiguous")
                .to_string();
            assert!(
                error.contains("'1m' can mean a minute or a month: write 1mo (30 days) or 1min"),
                "{error}"
            );
        }
    }

    #[test]
    fn names_and_rules_do_not_mix() {
        assert!(args(&["abcd"]).is_ok());
        for words in [
            &["abcd", "--keep-last", "1"][..],
            &["abcd", "--force"],
            &["abcd", "--tag", "x"],
        ] {
            assert!(args(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn groups_are_named_by_what_they_share() {
        let by = |words: &[&str]| args(words).expect("good words").group_by;
        let none = GroupBy {
            host: false,
            sources: false,
            paths: false,
            tags: false,
        };

        assert_eq!(by(&[]), None);
        assert_eq!(
            (by(&["--group-by", ""]), by(&["--group-by", "none"])),
            (Some(none), Some(none))
        );

        assert_eq!(by(&["--group-by", "host,paths"]), Some(GroupBy::default()));
        assert_eq!(
            by(&["--group-by", "tags,host"]),
            Some(GroupBy {
                host: true,
                tags: true,
                ..none
            })
        );
        assert_eq!(
            by(&["--group-by", "host,sources"]),
            Some(GroupBy {
                host: true,
                sources: true,
                ..none
            })
        );

        assert!(
            args(&["--group-by", "directories"]).is_err()
                && args(&["--group-by", "none,host"]).is_err()
        );
    }
}
