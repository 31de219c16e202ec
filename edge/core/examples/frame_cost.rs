//! What a client's frame costs, in microseconds per client and tick, in the crowd workload: a square with 40 others within
//! 50 m, 5 m/s, the 32 nearest shown, all clients on one edge.
//!
//! `cargo run --release -p marchland-edge-core --example frame_cost`
//!
//! `baseline` copies the same number of bytes out of a prepared buffer. Nothing here is durable and nothing is sent. Each figure is
//! the median over ticks, so that a busy machine disturbs it little.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use marchland_edge_core::replies::Replies;
use marchland_edge_core::{FrameWriter, InterestConfig, OwnView, RegionMap, Viewer, Views};
use marchland_proto::cluster::{CellPart, EntityRecord, RegionBatch};
use marchland_proto::records::{Motion, OwnState, quantize};
use marchland_types::{CellId, GroupId, RegionId, WorldId};

const TICKS: u64 = 400;

struct Walker {
    at: [f32; 2],
    heading: f32,
    before: [i32; 3],
    cell: u32,
}

fn next(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 40) as f32 / (1 << 24) as f32
}

#[allow(clippy::disallowed_methods, reason = "measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn main() {
    println!("{:>6} {:>10} {:>12} {:>10} {:>12} {:>10}", "N", "ingest us", "pick+write", "frame us", "bytes/frame", "baseline");
    for n in [500usize, 1000] {
        measure(n);
    }
}

fn measure(n: usize) {
    let side = (n.max(50) as f32 * std::f32::consts::PI * 2_500.0 / 40.0).sqrt();
    let mut seed = 7;
    let mut walkers: Vec<Walker> = (0..n)
        .map(|_| Walker {
            at: [next(&mut seed) * side, next(&mut seed) * side],
            heading: next(&mut seed) * std::f32::consts::TAU,
            before: [0; 3],
            cell: u32::MAX,
        })
        .collect();
    let config = InterestConfig::default();
    let (mut views, map) = (Views::default(), RegionMap::default());
    let region = views.open(GroupId::region(WorldId(1), RegionId(1)));
    let mut clients: Vec<_> = (0..n)
        .map(|i| {
            let mut viewer = Viewer::new(i as u64, 1 << 32 | i as u64, i as u32 % config.repick_every_ticks);
            viewer.follow(&mut views, region);
            (viewer, OwnView::default(), Replies::default())
        })
        .collect();
    let mut writer = FrameWriter::default();
    let mut out = BytesMut::with_capacity(1 << 20);
    let (mut ingest, mut frames, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bytes, mut count) = (0u64, 0u64);
    let mut fresh: Vec<u32> = Vec::new();
    for tick in 1..=TICKS {
        let batch = batch_of(&mut walkers, side, tick, &mut seed, &fresh);
        let start = now();
        views[region].apply(&batch);
        let applied = now();
        for (i, ((_, own, _), walker)) in clients.iter_mut().zip(&walkers).enumerate() {
            let (sin, cos) = walker.heading.sin_cos();
            let position = [walker.at[0], 0.0, walker.at[1]];
            let velocity = [5.0 * cos, 0.0, 5.0 * sin];
            let (slot, seq) = (i as u32, tick / 2);
            own.take(OwnState {
                character: i as u64,
                applied_seq: seq,
                move_seq: seq,
                position,
                velocity,
                slot,
                ..Default::default()
            });
        }
        let warm = tick > 20;
        let began = now();
        for ((viewer, own, replies), walker) in clients.iter_mut().zip(&walkers) {
            viewer.hold_cells(&mut views, &map, &config, walker.at[0], walker.at[1]);
            writer.write(&views, &config, viewer, own, replies, &mut out);
            let frame = out.split().freeze();
            if warm {
                bytes += frame.len() as u64;
                count += 1;
            }
            std::hint::black_box(frame);
        }
        let done = now();
        let prepared = [7u8; 200];
        for _ in 0..n {
            out.put_slice(std::hint::black_box(&prepared));
            std::hint::black_box(out.split().freeze());
        }
        if warm {
            ingest.push(applied - start);
            frames.push(done - began);
            copies.push(now() - done);
        }
        fresh = views[region].take_changes().0;
    }
    let per = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e6 / n as f64
    };
    let (ingest, frames, copies) = (per(ingest), per(frames), per(copies));
    let size = bytes as f64 / count as f64;
    println!("{n:>6} {ingest:>10.3} {frames:>12.3} {:>10.3} {size:>12.1} {copies:>10.3}", ingest + frames);
}

fn batch_of(walkers: &mut [Walker], side: f32, tick: u64, seed: &mut u64, fresh: &[u32]) -> RegionBatch {
    let mut parts = std::collections::BTreeMap::<u32, (Vec<u8>, CellPart)>::new();
    for (slot, walker) in walkers.iter_mut().enumerate() {
        let slot = slot as u32;
        walker.heading += (next(seed) - 0.5) * 0.2;
        let (sin, cos) = walker.heading.sin_cos();
        for (axis, step) in [cos * 0.25, sin * 0.25].into_iter().enumerate() {
            walker.at[axis] += step;
            if !(0.0..side).contains(&walker.at[axis]) {
                walker.at[axis] = walker.at[axis].clamp(0.0, side - 0.01);
                walker.heading += std::f32::consts::PI;
            }
        }
        let at = [quantize(walker.at[0]), 0, quantize(walker.at[1])];
        let cell = CellId::of(walker.at[0], walker.at[1]).pack();
        let came = walker.cell != cell;
        if came && tick > 1 {
            parts.entry(walker.cell).or_default().1.left.push(slot);
        }
        walker.cell = cell;
        let (motion, part) = parts.entry(cell).or_default();
        if came || fresh.contains(&cell) {
            part.entities.push(EntityRecord {
                slot,
                entity: 1 << 32 | u64::from(slot),
                kind: 1,
                name: format!("bot-{slot}"),
                look: vec![8, 3].into(),
                x: at[0],
                z: at[2],
                ..EntityRecord::default()
            });
        }
        Motion { slot, x: at[0], y: 0, z: at[2], delta: Motion::delta_between(walker.before, at), yaw: slot as u8 }.put(motion);
        walker.before = at;
    }
    let cells = parts
        .into_iter()
        .map(|(cell, (motion, part))| CellPart { cell, full: fresh.contains(&cell), motion: motion.into(), ..part })
        .collect();
    RegionBatch { region: 1, tick, index: tick, server_ms: 1_790_000_000_000 + tick * 50, cells, ..RegionBatch::default() }
}
