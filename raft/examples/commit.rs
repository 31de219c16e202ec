//! Commit latency of three nodes in this process, on a real disk and over mutual TLS, beside a bare `fdatasync` of the same
//! folder: `commit [DIR [GROUPS [PAUSE_MS [SECONDS]]]]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use marchland_proto::net::{ClusterSecurity, PeerIdentity, Role, TokioTransport, make_authority, make_node_certificate};
use marchland_raft::testkit::commit_latencies;
use marchland_storage::disk::{Disk, DiskFile, RealDisk};
use marchland_storage::log::{LogOptions, SharedLog};
use marchland_types::{NodeId, WorldId};
use tokio::time::Instant;

const COMMAND_BYTES: usize = 512;

fn fdatasync_us(dir: &Path) -> std::io::Result<Vec<u64>> {
    let path = dir.join("probe");
    let mut file = RealDisk.create(&path)?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_data()?;
    let mut times = Vec::new();
    for round in 0..500u64 {
        file.write_all_at(&[round as u8; COMMAND_BYTES], round * 4096)?;
        let at = Instant::now();
        file.sync_data()?;
        times.push(at.elapsed().as_micros() as u64);
    }
    RealDisk.remove(&path)?;
    times.sort_unstable();
    Ok(times)
}

fn quantile(sorted: &[u64], share: f64) -> u64 {
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or(0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let dir = arguments.get(1).map_or_else(|| std::env::temp_dir().join("marchland-commit"), PathBuf::from);
    let (groups, pause_ms, seconds) = (number(2, 64) as u32, number(3, 50), number(4, 5));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    RealDisk.create_dir_all(&dir)?;
    let authority = make_authority("bench")?;
    let security = |node: NodeId| {
        let roles = [Role::Shard].into();
        let identity = PeerIdentity { cluster: "bench".into(), node, roles, worlds: Some([WorldId(1)].into()) };
        let (certificate, key) = make_node_certificate(&authority, &identity).expect("a certificate");
        let authority = authority.certificate_pem.as_bytes();
        ClusterSecurity::from_pem(authority, certificate.as_bytes(), key.as_bytes()).expect("a TLS configuration")
    };
    let mut logs = Vec::new();
    for node in 1..=3 {
        let (log, writer) = SharedLog::open(RealDisk, &dir.join(node.to_string()), LogOptions::default())?;
        writer.run_thread()?;
        logs.push(log);
    }
    let logs = <[SharedLog; 3]>::try_from(logs).map_err(|_| "three logs")?;
    let syncs = logs.clone();
    let baseline = fdatasync_us(&dir)?;
    let (pause, length) = (Duration::from_millis(pause_ms), Duration::from_secs(seconds));
    let figures = commit_latencies(&TokioTransport, &security, logs, groups, COMMAND_BYTES, pause, length).await?;
    println!(
        "{groups} groups, {COMMAND_BYTES} bytes every {pause_ms} ms: {} commits ({:.0}/s), {} failed",
        figures.latencies_us.len(),
        figures.latencies_us.len() as f64 / figures.elapsed.as_secs_f64(),
        figures.failed
    );
    println!(
        "commit    p50 {} us, p99 {} us, max {} us",
        figures.quantile_us(0.5),
        figures.quantile_us(0.99),
        figures.quantile_us(1.0)
    );
    println!("fdatasync p50 {} us, p99 {} us", quantile(&baseline, 0.5), quantile(&baseline, 0.99));
    println!("syncs {:?}", syncs.map(|log| log.stats().syncs));
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
