//! What a tick costs: many characters that walk all the time and send inputs at 10 Hz, phases spread.
//!
//! `cargo run --release -p marchland-region-core --example walkers [COUNT] [TICKS]` prints microseconds per tick, with the
//! baseline beside them: decoding the entries alone. Each replica pays this twenty times a second.

#![allow(clippy::disallowed_methods, reason = "measures with the machine's clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use marchland_proto::storage::{RegionEntry, StoredMove, stored_input};
use marchland_region_core::testing::Script;
use marchland_region_core::{
    Action, BadParameters, CharacterId, Context, Effects, EntityId, Game, LogIndex, OpenGround, Refusal, Region, Registry, Spawn,
};
use prost::Message as _;

struct Plain {
    side_m: f32,
}

impl Game for Plain {
    type Ground = OpenGround;

    fn rules_version(&self) -> u64 {
        1
    }

    fn content_hash(&self) -> u64 {
        0
    }

    fn components(&self, _registry: &mut Registry) {}

    fn ground(&self, _parameters: &[u8]) -> Result<OpenGround, BadParameters> {
        Ok(OpenGround::new(self.side_m))
    }

    fn enter(&self, ctx: &mut Context<'_, Self>, _character: CharacterId, _name: &str) -> Spawn {
        let random = ctx.random(0);
        Spawn::new(1).at([random.between(1.0, self.side_m - 1.0), 0.0, random.between(1.0, self.side_m - 1.0)])
    }

    fn command(&self, _ctx: &mut Context<'_, Self>, _who: EntityId, _action: Action<'_>) -> Result<Bytes, Refusal> {
        Err(Refusal::unknown_action())
    }
}

/// The crowd of the measurements: about 40 others within 50 m of everyone.
fn side_m(count: u64) -> f32 {
    (count.max(50) as f32 * 196.35).sqrt()
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let count = arguments.next().unwrap_or(1000);
    let ticks = arguments.next().unwrap_or(400);
    let game = Arc::new(Plain { side_m: side_m(count) });
    let mut script = Script::new(&*game, Vec::new());
    for character in 1..=count {
        script.enter(character, "walker");
        if character % 1000 == 0 {
            script.tick();
        }
    }
    script.tick();
    let begin = script.log().len();
    for tick in 0..ticks {
        for character in (1..=count).filter(|character| (character + tick) % 2 == 0) {
            let angle = ((character * 37 + tick / 40 * 11) % 256) as f32 * std::f32::consts::TAU / 256.0;
            let wanted = StoredMove { x: angle.cos(), z: angle.sin(), yaw: character as u32 % 256 };
            script.input(character, 100, Some(stored_input::What::Move(wanted)));
        }
        script.tick();
    }

    let mut region = Region::new(game.clone());
    let mut effects = Effects::default();
    let mut times = Vec::new();
    let (mut moved, mut own, mut decoding) = (0, 0, Vec::new());
    for (at, entry) in script.log().iter().enumerate() {
        let start = Instant::now();
        RegionEntry::decode(&entry[..]).expect("an entry");
        let decoded = start.elapsed();
        let start = Instant::now();
        region.apply_into(LogIndex(at as u64 + 1), entry, &mut effects).expect("an entry that applies");
        if at >= begin {
            times.push(start.elapsed());
            decoding.push(decoded);
            moved += effects.moved.len();
            own += effects.own.len();
        }
    }
    times.sort_unstable();
    decoding.sort_unstable();
    let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
    let mean = times.iter().sum::<Duration>() / times.len() as u32;
    println!("{count} characters, {ticks} ticks; moved {} and own {} a tick", moved / times.len(), own / times.len());
    println!(
        "apply   mean {:7.1} µs  p50 {:7.1}  p99 {:7.1}",
        micros(mean),
        micros(times[times.len() / 2]),
        micros(times[times.len() * 99 / 100])
    );
    println!("decode  p50 {:7.1} µs  (part of apply, and the baseline)", micros(decoding[decoding.len() / 2]));

    let start = Instant::now();
    let view = region.view();
    let viewed = start.elapsed();
    let start = Instant::now();
    let bytes = view.encode();
    let encoded = start.elapsed();
    let start = Instant::now();
    Region::decode(game, &bytes).expect("what was encoded");
    println!(
        "view    {:7.1} µs, encode {:.1} µs, decode {:.1} µs, {} bytes",
        micros(viewed),
        micros(encoded),
        micros(start.elapsed()),
        bytes.len()
    );
}
