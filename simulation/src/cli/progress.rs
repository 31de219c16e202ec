//! The bar that tells how a sweep goes on. It starts no thread: seeds are forks of this process.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use simulation::report::Summary;

use super::args::Args;

/// How a sweep goes on.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for so many seeds; of an unknown number without. Hidden when nobody would look at it.
    pub(super) fn new(args: &Args, seeds: Option<u64>) -> Self {
        let hidden = args.json || args.seed.is_some();
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(seeds, target);
        let template = match seeds {
            Some(_) => "{bar:24} {pos}/{len} seeds, {eta} left, {msg}",
            None => "{elapsed} {pos} seeds, {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// One more seed is in the summary.
    pub(super) fn seed(&self, summary: &Summary) {
        let minutes = self.elapsed().as_secs_f64() / 60.0;
        let rate = summary.seeds as f64 / minutes.max(1e-9);
        let (faults, points) = summary.fired_by_sort();
        let violations = summary.violations.len();
        self.bar.set_message(format!("{rate:.0} a minute; {faults} faults, {points} crash points, {violations} violations"));
        self.bar.inc(1);
    }

    /// Shows something else, without breaking the bar.
    pub(super) fn beside(&self, show: impl FnOnce()) {
        self.bar.suspend(show);
    }

    /// Wall time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.bar.elapsed()
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
