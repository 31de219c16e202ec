//! What animals cost a replica: microseconds of a tick in a region where nobody plays, beside the same region without any.
//!
//! `cargo run --release -p frontier --example animals [COUNT] [TICKS]`. Each replica pays this twenty times a second; what an owner
//! publishes and edges send comes on top of it, and is measured by `marchland bench npc`.

#![allow(clippy::disallowed_methods, reason = "measures with the machine's clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use frontier::{Frontier, Parameters};
use marchland_region_core::testing::Script;
use marchland_region_core::{Effects, LogIndex, Region};
use prost::Message;

/// Ticks before the first that counts: animals begin in the middle of what they do, but none walks yet.
const WARM_UP: usize = 400;

/// What a tick took, and how many moved in it.
struct Taken {
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    moved: usize,
}

fn measure(animals: u32, ticks: usize) -> Taken {
    let game = Arc::new(Frontier::new().expect("the content that is compiled in"));
    // About 40 within 50 m of each.
    let side_m = (animals.max(50) as f32 * 196.35).sqrt();
    let mut script = Script::new(&*game, Parameters::open(side_m, 0).animals(animals).encode_to_vec());
    for _ in 0..WARM_UP + ticks {
        script.tick();
    }
    let mut region = Region::new(game);
    let mut effects = Effects::default();
    let (mut times, mut moved) = (Vec::new(), 0);
    for (at, entry) in script.log().iter().enumerate() {
        let start = Instant::now();
        region.apply_into(LogIndex(at as u64 + 1), entry, &mut effects).expect("an entry that applies");
        if at > WARM_UP {
            times.push(start.elapsed());
            moved += effects.moved.len();
        }
    }
    region.check().expect("a state that can be");
    times.sort_unstable();
    let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
    Taken {
        mean_us: micros(times.iter().sum::<Duration>()) / times.len() as f64,
        p50_us: micros(times[times.len() / 2]),
        p99_us: micros(times[times.len() * 99 / 100]),
        moved: moved / times.len(),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>().expect("a number"));
    let animals = arguments.next().unwrap_or(5000);
    let ticks = arguments.next().unwrap_or(2000).max(1) as usize;
    for count in [0, animals] {
        let Taken { mean_us, p50_us, p99_us, moved } = measure(count, ticks);
        let each = if count > 0 { format!(", {:.1} ns an animal", mean_us * 1000.0 / f64::from(count)) } else { String::new() };
        println!(
            "{count:>5} animals: mean {mean_us:6.1} µs a tick, p50 {p50_us:.1}, p99 {p99_us:.1}; {moved} move in a tick{each}"
        );
    }
}
