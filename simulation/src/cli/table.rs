//! What came of a sweep, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use simulation::report::Summary;

/// Prints the summary of a sweep that took this much wall time.
pub(super) fn print(summary: &Summary, elapsed: Duration) {
    let wall_s = elapsed.as_secs_f64();
    let faults: BTreeMap<&str, u64> = summary.faults().collect();
    if !faults.is_empty() {
        println!("{}", counts("fault", &["took effect"], faults.into_iter().map(|(name, times)| (name, vec![times]))));
    }
    let points = summary.points();
    if !points.is_empty() {
        let columns = ["owner", "follower", "edge", "anyone", "met"];
        let rows = points.iter().map(|(name, p)| (*name, vec![p.owner, p.follower, p.edge, p.anyone, p.met]));
        println!("{}", counts("crash point", &columns, rows));
    }
    let sometimes: Vec<(&str, Vec<u64>)> = summary.others().map(|(name, times)| (name, vec![times])).collect();
    if !sometimes.is_empty() {
        println!("{}", counts("sometimes", &["times"], sometimes.into_iter()));
    }
    for name in &summary.missing {
        println!("NEVER HAPPENED in {} seeds: {name}", summary.seeds);
    }
    println!(
        "{} seeds, {} violations; {:.0} simulated s, {:.1} s of processor ({:.0} simulated s a second of it); {:.1} s of wall time, {:.0} seeds a minute",
        summary.seeds,
        summary.violations.len(),
        summary.simulated_s,
        summary.cpu_s,
        summary.simulated_s / summary.cpu_s.max(1e-9),
        wall_s,
        summary.seeds as f64 * 60.0 / wall_s.max(1e-9)
    );
    if let Some(hash) = &summary.trace_hash {
        println!("trace {hash}");
    }
}

fn counts<'a>(what: &str, columns: &[&str], rows: impl Iterator<Item = (&'a str, Vec<u64>)>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(std::iter::once(what).chain(columns.iter().copied()));
    for (name, numbers) in rows {
        let shown = numbers.iter().map(|n| if *n == 0 { "·".to_owned() } else { n.to_string() });
        table.add_row(std::iter::once(name.to_owned()).chain(shown));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
