//! Shows an operation's counters as a bar on the terminal or as JSON events. A thread reads them at
//! a fixed interval.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use icecore::jobs::report::{
    CounterValues, DetailEvent, PlannedEvent, ProblemEvent, ProgressEvent, SummaryEvent,
    planned_verb_name, severity_name,
};
use icecore::observe::{
    Counter, Counters, Observer, Phase, PlannedChange, PlannedVerb, Problem, ProgressUnit,
    Severity, Subject,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::output::Ui;
use super::{json, text};
use crate::advice::hint;
use crate::exit::Outcome;

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often a JSON progress event is written.
const EMIT_EVERY: Duration = Duration::from_secs(1);
/// Maximum bytes of problem lines that are kept. An environment variable holds at most 128 KiB.
const REPORTED_BYTES_MAX: usize = 16 << 10;
/// Number of draws over which the displayed rate is averaged: 25 draws of 200 ms are 5 s.
const RATE_SAMPLES: usize = 25;

/// Receives an operation's events, shows its progress, and records the worst severity reported.
pub struct Meter {
    state: Arc<MeterState>,
    /// Dropped to end the drawing thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct MeterState {
    ui: Ui,
    started: Instant,
    counters: Counters,
    stage: Mutex<MeterStage>,
    worst: AtomicU8,
    /// The first lines of problems that are worse than a note.
    reported: Mutex<String>,
    /// The last printed hint. The same hint is not printed again for the next problem.
    last_hint: Mutex<String>,
    /// True while a phase is running. Nothing is drawn before the first phase.
    begun: AtomicBool,
    bar: Option<ProgressBar>,
}

/// The current phase.
struct MeterStage {
    text: String,
    started: Instant,
    /// The value of [`Counter::Done`] when the phase began.
    done_before: u64,
    total: Option<(u64, ProgressUnit)>,
}

/// The values of a line of progress.
#[derive(Debug, Clone, Default)]
struct MeterView {
    phase: String,
    counts: CounterValues,
    /// Plain bytes per second over the last draws.
    rate: u64,
    done: u64,
    total: Option<(u64, ProgressUnit)>,
    /// Time since the phase began.
    elapsed: Duration,
}

impl Ui {
    /// Starts counting and drawing an operation.
    pub fn meter(self) -> Meter {
        Meter::start(self)
    }
}

impl Meter {
    fn start(ui: Ui) -> Self {
        let drawn = !ui.json && !ui.quiet && io::stderr().is_terminal();
        let bar = drawn.then(|| {
            // The thread below draws at 5 Hz. The draw target only caps the rate.
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style(false));
            bar
        });

        let state = Arc::new(MeterState {
            ui,
            started: Instant::now(),
            counters: Counters::default(),
            stage: Mutex::new(MeterStage {
                text: String::new(),
                started: Instant::now(),
                done_before: 0,
                total: None,
            }),
            worst: AtomicU8::new(0),
            reported: Mutex::default(),
            last_hint: Mutex::default(),
            begun: AtomicBool::new(false),
            bar,
        });

        // No thread is needed if there is nothing to show.
        let (stop, stopped) = mpsc::channel();
        let every = if drawn {
            Some(DRAW_EVERY)
        } else if ui.json && !ui.quiet {
            Some(EMIT_EVERY)
        } else {
            None
        };

        let thread = every.and_then(|every| {
            let state = Arc::clone(&state);
            let draw = move || {
                let mut rate = ByteRate::default();
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                    state.show(&mut rate);
                }
            };
            // If the thread cannot be started, the operation continues without a bar.
            std::thread::Builder::new()
                .name("progress".to_owned())
                .spawn(draw)
                .ok()
        });

        Self {
            state,
            stop: Some(stop),
            thread,
        }
    }

    /// Returns the counts so far.
    pub fn counts(&self) -> CounterValues {
        self.state.counts()
    }

    /// Returns the duration of the operation so far.
    pub fn elapsed(&self) -> Duration {
        self.state.started.elapsed()
    }

    /// Returns the outcome that follows from the problems reported so far.
    pub fn outcome(&self) -> Outcome {
        match self.state.worst.load(Ordering::Relaxed) {
            0 => Outcome::Done,
            1 => Outcome::Incomplete,
            2 => Outcome::Damage,
            _ => Outcome::Alarm,
        }
    }

    /// Returns the lines of warnings, damage and alarms so far, as printed for people, up to 16
    /// KiB.
    pub fn reported(&self) -> String {
        self.state
            .reported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the drawing and prints the result: with `--json` a `summary` of `body`, otherwise
    /// `lines` on standard error. Returns the worse of `outcome` and [`Meter::outcome`].
    pub fn finish<T: Serialize>(
        mut self,
        command: &'static str,
        outcome: Outcome,
        body: &T,
        lines: impl FnOnce() -> Vec<String>,
    ) -> Outcome {
        self.end();
        let outcome = outcome.max(self.outcome());
        let ui = self.state.ui;
        if ui.json {
            let seconds = self.elapsed().as_secs_f64();
            let exit_code = outcome.code();
            json::emit(&SummaryEvent {
                command,
                exit_code,
                seconds,
                body,
            });
        } else if !ui.quiet {
            for line in lines() {
                ui.note(line);
            }
        }
        outcome
    }

    /// Ends the drawing and prints nothing, for commands whose output is data.
    pub fn end(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has printed its message. It does not affect the operation.
            let _ = thread.join();
        }
        if let Some(bar) = &self.state.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
    }
}

impl MeterState {
    fn stage(&self) -> MutexGuard<'_, MeterStage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns false if the hint is the last one that was printed.
    fn is_new_hint(&self, hint: &str) -> bool {
        let last = self.last_hint.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        let is_new = *last != hint;
        if is_new {
            hint.clone_into(&mut last);
        }
        is_new
    }

    fn counts(&self) -> CounterValues {
        CounterValues::from(&self.counters)
    }

    fn view(&self, rate: &mut ByteRate) -> MeterView {
        let counts = self.counts();
        let stage = self.stage();
        MeterView {
            phase: stage.text.clone(),
            counts,
            rate: rate.next(Instant::now(), counts.bytes_read),
            done: self
                .counters
                .get(Counter::Done)
                .saturating_sub(stage.done_before),
            total: stage.total,
            elapsed: stage.started.elapsed(),
        }
    }

    fn show(&self, rate: &mut ByteRate) {
        if !self.begun.load(Ordering::Relaxed) {
            return;
        }
        let view = self.view(rate);
        if let Some(bar) = &self.bar {
            draw(bar, &view);
        } else {
            json::emit(&event(&view, self.started.elapsed()));
        }
    }

    /// Appends a line to the text that [`Meter::reported`] returns, up to its limit.
    fn report(&self, line: &str) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() + line.len() < REPORTED_BYTES_MAX {
            if !reported.is_empty() {
                reported.push('\n');
            }
            reported.push_str(line);
        }
    }

    /// Prints a line on standard error without disturbing the bar.
    fn say(&self, line: impl fmt::Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.ui.warn(line)),
            None => self.ui.warn(line),
        }
    }
}

impl Observer for Meter {
    fn add(&self, counter: Counter, amount: u64) {
        self.state.counters.add(counter, amount);
    }

    fn phase(&self, phase: &Phase) {
        let mut stage = self.state.stage();
        stage.text = text::clean(&phase.to_string());
        stage.started = Instant::now();
        stage.done_before = self.state.counters.get(Counter::Done);
        stage.total = None;
        self.state
            .begun
            .store(*phase != Phase::End, Ordering::Relaxed);
    }

    fn expect(&self, total: u64, unit: ProgressUnit) {
        self.state.stage().total = Some((total, unit));
    }

    fn problem(&self, problem: &Problem) {
        let severity = severity_name(problem.severity);
        let rank = match problem.severity {
            Severity::Note | Severity::Warning => 0,
            Severity::Missing => 1,
            Severity::Damage => 2,
            Severity::Alarm => 3,
        };
        self.state.worst.fetch_max(rank, Ordering::Relaxed);

        let hint = problem.advice.as_ref().map(hint);
        let hint = hint.as_deref();
        let label = if problem.severity == Severity::Missing {
            "warning"
        } else {
            severity
        };

        if problem.severity != Severity::Note {
            self.state
                .report(&format!("{label}: {}", text::clean(&problem.to_string())));
        }

        if self.state.ui.json {
            let hint = hint.map(str::to_owned);
            json::emit(&ProblemEvent::new(problem, hint));
        } else if !(self.state.ui.quiet && problem.severity == Severity::Note) {
            self.state.say(format_args!(
                "{label}: {}",
                text::clean(&problem.to_string())
            ));
            if let Some(hint) = hint
                && self.state.is_new_hint(hint)
            {
                self.state.say(format_args!("hint: {}", text::clean(hint)));
            }
        }
    }

    fn detail(&self, verb: &'static str, subject: &Subject) {
        if !self.state.ui.verbose {
            return;
        }
        if self.state.ui.json {
            json::emit(&DetailEvent::new(verb, subject));
        } else {
            self.state
                .say(format_args!("{verb} {}", text::clean(subject.text())));
        }
    }

    fn planned(&self, planned: &PlannedChange<'_>) {
        if self.state.ui.json {
            json::emit(&PlannedEvent::new(planned));
            return;
        }
        let line = planned_line(planned);
        let print = || {
            // A reader that closed the pipe does not end the operation.
            let _ = writeln!(io::stdout().lock(), "{}", text::clean(&line));
        };
        match &self.state.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn wants_detail(&self) -> bool {
        self.state.ui.verbose
    }
}

/// Describes the planned action of a dry run on one path.
fn planned_line(planned: &PlannedChange<'_>) -> String {
    let here = match planned.here {
        Some(here) if planned.verb == PlannedVerb::Overwrite => {
            let newer = if planned.is_newer {
                ", newer than the snapshot's"
            } else {
                ""
            };
            format!(" (here {}{newer})", text::when(here))
        }
        _ => String::new(),
    };
    let verb = planned_verb_name(planned.verb);
    let source = planned.source;
    let path = planned.path;
    if path.is_root() {
        return format!("would {verb} {source}{here}");
    }
    format!("would {verb} {source}/{path}{here}")
}

/// Bytes per second over the last draws.
#[derive(Default)]
struct ByteRate(VecDeque<(Instant, u64)>);

impl ByteRate {
    fn next(&mut self, now: Instant, bytes: u64) -> u64 {
        self.0.push_back((now, bytes));
        if self.0.len() > RATE_SAMPLES {
            self.0.pop_front();
        }
        let Some((first, before)) = self.0.front() else {
            return 0;
        };
        let seconds = now.duration_since(*first).as_secs_f64();
        if seconds > 0.0 {
            (bytes.saturating_sub(*before) as f64 / seconds) as u64
        } else {
            0
        }
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = if with_total {
        "{spinner} [{bar:20}] {percent:>3}% {wide_msg}"
    } else {
        "{spinner} {wide_msg}"
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.tick_chars("|/-\\ ").progress_chars("=> ")
}

fn draw(bar: &ProgressBar, view: &MeterView) {
    match view.total {
        Some((total, _)) => {
            if bar.length() != Some(total) {
                bar.set_style(style(true));
                bar.set_length(total);
            }
            bar.set_position(view.done.min(total));
        }
        None => {
            if bar.length().is_some() {
                bar.set_style(style(false));
                bar.unset_length();
            }
        }
    }
    bar.set_message(line(view));
    bar.tick();
}

/// Formats a line of progress: phase, entries, bytes read, new data, failures, rate and time left.
/// Values of zero are left out.
fn line(view: &MeterView) -> String {
    let counts = &view.counts;
    let mut parts = vec![view.phase.clone()];
    if counts.entries > 0 {
        parts.push(text::counted(counts.entries, "entry", "entries"));
    }
    if counts.bytes_read > 0 {
        parts.push(text::size(counts.bytes_read));
    }
    let fresh = counts.files_new + counts.files_changed;
    if fresh > 0 {
        parts.push(format!("{} new or changed", text::number(fresh)));
    }
    if counts.bytes_new > 0 {
        parts.push(format!("{} new", text::size(counts.bytes_new)));
    }
    if counts.failed > 0 {
        parts.push(format!("{} failed", text::number(counts.failed)));
    }
    if view.rate > 0 {
        parts.push(format!("{}/s", text::size(view.rate)));
    }
    if let Some(left) = time_left(view) {
        parts.push(format!("{} left", text::span(left)));
    }
    parts.join(", ")
}

/// Estimates the time left from the phase's average pace so far. Returns `None` if there is no
/// total or no pace yet.
fn time_left(view: &MeterView) -> Option<Duration> {
    let (total, _) = view.total?;
    let left = total.checked_sub(view.done)?;
    // The pace of the first second means little.
    if view.done == 0 || left == 0 || view.elapsed < Duration::from_secs(1) {
        return None;
    }
    Duration::try_from_secs_f64(view.elapsed.as_secs_f64() * left as f64 / view.done as f64).ok()
}

fn event(view: &MeterView, since: Duration) -> ProgressEvent {
    ProgressEvent {
        phase: view.phase.clone(),
        seconds: since.as_secs_f64(),
        done: view.total.map(|_| view.done),
        total: view.total.map(|(total, _)| total),
        unit: view.total.map(|(_, unit)| match unit {
            ProgressUnit::Bytes => "bytes",
            ProgressUnit::Items => "things",
        }),
        counters: view.counts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Ui = Ui {
        json: false,
        quiet: true,
        verbose: false,
    };

    #[test]
    fn a_line_shows_the_counts_that_are_known() {
        let mut view = MeterView {
            phase: "backing up home".to_owned(),
            ..MeterView::default()
        };
        assert_eq!(line(&view), "backing up home");
        view.counts = CounterValues {
            entries: 1200,
            files_new: 3,
            files_changed: 1,
            bytes_read: 3 << 20,
            bytes_new: 1 << 20,
            ..CounterValues::default()
        };
        view.rate = 2 << 20;
        (view.done, view.total, view.elapsed) = (
            50,
            Some((200, ProgressUnit::Bytes)),
            Duration::from_secs(20),
        );
        assert_eq!(
            line(&view),
            "backing up home, 1,200 entries, 3.0 MiB, 4 new or changed, 1.0 MiB new, 2.0 MiB/s, 1m00s left"
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_samples() {
        let mut rate = ByteRate::default();
        let start = Instant::now();
        assert_eq!(rate.next(start, 0), 0);
        assert_eq!(rate.next(start + Duration::from_secs(2), 200), 100);
        for i in 0..RATE_SAMPLES as u64 {
            rate.next(start + Duration::from_secs(3 + i), 200);
        }
        assert_eq!(rate.next(start + Duration::from_secs(60), 200), 0);
    }

    #[test]
    fn problems_decide_the_outcome() {
        let mut meter = SILENT.meter();
        meter.problem(&Problem::new(Severity::Note, "a", "noted"));
        assert_eq!(meter.outcome(), Outcome::Done);
        meter.problem(&Problem::new(Severity::Damage, "a", "damaged"));
        meter.problem(&Problem::new(Severity::Missing, "a", "missing"));
        assert_eq!(meter.outcome(), Outcome::Damage);
        meter.end();
    }

    #[test]
    fn a_phase_counts_from_where_it_began() {
        let meter = SILENT.meter();
        meter.add(Counter::Done, 5);
        meter.phase(&Phase::Data);
        meter.expect(10, ProgressUnit::Bytes);
        meter.add(Counter::Done, 3);
        let view = meter.state.view(&mut ByteRate::default());
        assert_eq!(
            (view.done, view.total),
            (3, Some((10, ProgressUnit::Bytes)))
        );
        let event = event(&view, Duration::ZERO);
        assert_eq!(
            (event.done, event.total, event.unit),
            (Some(3), Some(10), Some("bytes"))
        );
    }
}
