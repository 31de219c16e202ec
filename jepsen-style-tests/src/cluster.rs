//! A cluster of the real binary: started by `marchland up`, killed and resumed by process id.
//!
//! Everything is in one folder, named on every process's command line, so that nothing of it can be taken for something else and
//! nothing outlives the run unseen. Every wait has an end; what ends it says what the processes said last.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use marchland_admin::client::{AdminCluster, AdminEndpoint, Worlds};
use marchland_admin::verify::{VerifyReport, verify};
use marchland_proto::cluster::{GroupStatus, InspectReply, StatusReply};
use marchland_proto::net::TokioTransport;
use marchland_types::{CutNumber, GroupId, RegionId, WorldId};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::checker::{AtTheEnd, SessionAtTheEnd};
use crate::wall::Wall;

/// Longest time from the start to the ready file: longer than `up` itself waits, because it can say more.
const READY_WITHIN: Duration = Duration::from_secs(75);
/// Longest time for a clean stop.
const STOP_WITHIN: Duration = Duration::from_secs(40);
/// Longest time for a killed process to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for a verdict.
const VERIFY_WITHIN: Duration = Duration::from_secs(60);
/// Base ports are looked for from here, below the range from which the kernel takes ports by itself.
const PORTS_FROM: u16 = 12_000;
const PORTS_TO: u16 = 32_000;
/// A cluster uses base + 101 to base + 303.
const PORTS_APART: u16 = 400;

/// The directory of the world.
pub const DIRECTORY: GroupId = GroupId::directory(WorldId(1));
/// The only region of a world.
pub const REGION: GroupId = GroupId::region(WorldId(1), RegionId(1));

/// The ready file, as far as it is used here.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Every node.
    pub nodes: Vec<ReadyNode>,
}

/// One node of a ready file.
#[derive(Clone, Debug, Deserialize)]
pub struct ReadyNode {
    /// Its number.
    pub id: u32,
    /// Its process.
    pub pid: u32,
    /// Cluster address, `host:port`.
    pub grpc: String,
    /// Pages, `http://host:port`.
    pub http: String,
    /// Players, `ws://host:port`.
    pub ws: String,
}

impl ReadyNode {
    /// Where players connect, `host:port`.
    #[must_use]
    pub fn players(&self) -> &str {
        self.ws.strip_prefix("ws://").unwrap_or(&self.ws)
    }
}

/// The binary under test and where its clusters are.
#[derive(Clone, Debug)]
pub struct Binary(PathBuf);

impl Binary {
    /// `MARCHLAND_BIN` if it is set, else the one that was built with the tests. A relative path is taken from the workspace's
    /// folder: that is where people are when they write it, and not where cargo runs tests.
    pub fn find(built: &str) -> anyhow::Result<Self> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let path = std::env::var_os("MARCHLAND_BIN").map_or_else(|| PathBuf::from(built), |path| workspace.join(path));
        ensure!(path.is_file(), "{} is not there", path.display());
        Ok(Self(path))
    }

    /// One that no setting replaces.
    pub fn at(path: &str) -> anyhow::Result<Self> {
        ensure!(Path::new(path).is_file(), "{path} is not there");
        Ok(Self(PathBuf::from(path)))
    }

    /// A call of it, without input.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs it to its end, within `within`; returns status and everything that it printed.
    pub async fn run(&self, arguments: &[&str], within: Duration) -> anyhow::Result<(ExitStatus, String)> {
        let output = self.command().args(arguments).output();
        let output = timeout(within, output).await.with_context(|| format!("{arguments:?} did not end within {within:?}"))??;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok((output.status, text))
    }
}

/// A cluster in a folder.
pub struct Cluster {
    binary: Binary,
    folder: PathBuf,
    base_port: u16,
    options: Vec<String>,
    up: Option<Child>,
    /// Nodes that were started one by one.
    by_hand: BTreeMap<u32, Child>,
    ready: Option<Ready>,
}

impl Cluster {
    /// A cluster in `folder`, not running. `options` go to `marchland up` as they are.
    pub fn new(binary: &Binary, folder: &Path, options: &[&str]) -> anyhow::Result<Self> {
        Ok(Self {
            binary: binary.clone(),
            folder: folder.to_owned(),
            base_port: free_base_port()?,
            options: options.iter().map(ToString::to_string).collect(),
            up: None,
            by_hand: BTreeMap::new(),
            ready: None,
        })
    }

    /// Starts, or resumes, and waits until every region has an owner. Returns how long that took.
    pub async fn start(&mut self) -> anyhow::Result<Duration> {
        ensure!(self.up.is_none(), "the cluster runs already");
        let begun = Instant::now();
        let ready_file = self.ready_file();
        if ready_file.exists() {
            std::fs::remove_file(&ready_file)?;
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("up.log"))?;
        let mut command = self.binary.command();
        command
            .args(["up", "--bots", "0", "--no-restart", "--data"])
            .arg(self.data())
            .arg("--ready-file")
            .arg(&ready_file)
            .args(["--base-port", &self.base_port.to_string()])
            .args(&self.options)
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let mut up = command.spawn().context("can not start the binary")?;
        loop {
            if let Some(status) = up.try_wait()? {
                bail!("up ended with {status} before it was ready:\n{}", self.last_words());
            }
            if let Ok(text) = std::fs::read(&ready_file) {
                self.ready = Some(serde_json::from_slice(&text).context("ready file")?);
                self.up = Some(up);
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > READY_WITHIN {
                up.start_kill()?;
                bail!("not ready within {READY_WITHIN:?}:\n{}", self.last_words());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the cluster with `up`, and runs its nodes without it from here on, each to be killed and started alone.
    pub async fn start_by_hand(&mut self) -> anyhow::Result<()> {
        self.make().await?;
        self.start_all_by_hand().await
    }

    /// The same, with a wall between the nodes.
    pub async fn start_behind_wall(&mut self) -> anyhow::Result<Wall> {
        self.make().await?;
        let nodes: Vec<_> = self.ready()?.nodes.iter().map(|node| (node.id, node.grpc.clone())).collect();
        let wall = Wall::between(&nodes).await?;
        for node in self.numbers()? {
            wall.stands_around(node, &self.node_config(node))?;
        }
        self.start_all_by_hand().await?;
        Ok(wall)
    }

    /// Lets `up` make the cluster.
    async fn make(&mut self) -> anyhow::Result<()> {
        self.start().await?;
        let (ready, file) = (self.ready.clone(), std::fs::read(self.ready_file())?);
        self.stop().await?;
        self.ready = ready;
        // Where admin clients find the nodes. Its process ids are not looked at.
        std::fs::write(self.ready_file(), file)?;
        Ok(())
    }

    async fn start_all_by_hand(&mut self) -> anyhow::Result<()> {
        for node in self.numbers()? {
            self.start_node(node)?;
        }
        for node in self.numbers()? {
            self.node_ready(node).await?;
        }
        Ok(())
    }

    /// The process of a node that was started by hand.
    pub fn pid(&self, number: u32) -> anyhow::Result<u32> {
        self.by_hand.get(&number).and_then(Child::id).with_context(|| format!("node {number} does not run"))
    }

    /// Stops all nodes that were started by hand, at once: there is nobody to hand anything to.
    pub async fn stop_all(&mut self) -> anyhow::Result<()> {
        for number in self.by_hand.keys() {
            signal(self.pid(*number)?, libc::SIGINT)?;
        }
        for number in self.numbers()? {
            let status = self.node_ended(number, STOP_WITHIN).await?;
            ensure!(status.success(), "node {number} stopped with {status}:\n{}", self.last_words());
        }
        Ok(())
    }

    fn numbers(&self) -> anyhow::Result<Vec<u32>> {
        Ok(self.ready()?.nodes.iter().map(|node| node.id).collect())
    }

    /// Starts a node of a cluster that is run by hand.
    pub fn start_node(&mut self, number: u32) -> anyhow::Result<()> {
        ensure!(!self.by_hand.contains_key(&number), "node {number} runs already");
        let log = self.data().join(format!("node-{number}/node.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = self.binary.command();
        command.args(["node", "--config"]).arg(self.node_config(number)).stdout(log.try_clone()?).stderr(log);
        let child = command.process_group(0).spawn().context("can not start the binary")?;
        let ready = self.ready.as_mut().context("the cluster does not run")?;
        let node = ready.nodes.iter_mut().find(|node| node.id == number).context("no such node")?;
        node.pid = child.id().context("ended at once")?;
        self.by_hand.insert(number, child);
        Ok(())
    }

    /// Kills a node that was started by hand, without any warning, and waits until it is gone.
    pub async fn kill_node(&mut self, number: u32) -> anyhow::Result<()> {
        let mut child = self.by_hand.remove(&number).context("it does not run")?;
        child.start_kill()?;
        timeout(GONE_WITHIN, child.wait()).await.context("it does not go")??;
        Ok(())
    }

    /// Waits for the end of a node that was started by hand.
    pub async fn node_ended(&mut self, number: u32, within: Duration) -> anyhow::Result<ExitStatus> {
        let child = self.by_hand.get_mut(&number).context("it does not run")?;
        let status = timeout(within, child.wait()).await.with_context(|| format!("node {number} goes on after {within:?}"))??;
        self.by_hand.remove(&number);
        Ok(status)
    }

    /// Asks a node for a clean stop and waits for it.
    pub async fn stop_node(&mut self, number: u32) -> anyhow::Result<()> {
        let mut child = self.by_hand.remove(&number).context("it does not run")?;
        let pid = child.id().context("it has ended by itself")?;
        // SAFETY: plain system call; our own child, not yet waited for.
        unsafe { libc::kill(pid as i32, libc::SIGTERM) };
        let status = timeout(STOP_WITHIN, child.wait()).await.with_context(|| format!("no stop:\n{}", self.last_words()))??;
        ensure!(status.success(), "node {number} stopped with {status}:\n{}", self.last_words());
        Ok(())
    }

    /// Waits until a node serves players.
    pub async fn node_ready(&self, number: u32) -> anyhow::Result<()> {
        self.until(&format!("node {number} is ready"), async || Ok(self.status(number).await?.ready)).await
    }

    /// What a node says of itself.
    pub async fn status(&self, number: u32) -> anyhow::Result<StatusReply> {
        let at = self.ready()?.nodes.iter().position(|node| node.id == number).context("no such node")?;
        Ok(self.admin()?.nodes[at].status().await?)
    }

    /// A node's replica of a group, as it says itself.
    pub async fn replica(&self, number: u32, group: GroupId) -> anyhow::Result<GroupStatus> {
        let status = self.status(number).await?;
        status.groups.into_iter().find(|g| g.group == group.0).with_context(|| format!("node {number} has no {group}"))
    }

    /// The node that leads a group.
    pub async fn leader(&self, group: GroupId) -> anyhow::Result<u32> {
        // Of nodes that are started by hand, some may not run.
        let numbers = if self.by_hand.is_empty() { self.numbers()? } else { self.by_hand.keys().copied().collect() };
        for _ in 0..600 {
            for number in &numbers {
                if self.replica(*number, group).await.is_ok_and(|replica| replica.role == "leader") {
                    return Ok(*number);
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("nobody leads {group}:\n{}", self.last_words())
    }

    /// Waits until something is so. How long that takes is the machine's affair; that it happens is the cluster's. What can not be
    /// asked yet is not so yet.
    pub async fn until(&self, what: &str, so: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < READY_WITHIN {
            match so().await {
                Ok(true) => return Ok(()),
                Ok(false) => last.clear(),
                Err(error) => last = format!("{error:#}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("not within {READY_WITHIN:?}: {what} {last}\n{}", self.last_words())
    }

    /// Everything that a node has said.
    pub fn said(&self, number: u32) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.data().join(format!("node-{number}/node.log")))?)
    }

    /// The running cluster's ready file.
    pub fn ready(&self) -> anyhow::Result<&Ready> {
        self.ready.as_ref().context("the cluster does not run")
    }

    /// Where that file is.
    #[must_use]
    pub fn ready_file(&self) -> PathBuf {
        self.folder.join("ready.json")
    }

    /// The folder given to `--data`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    /// Data folder of node `number`.
    #[must_use]
    pub fn node_data(&self, number: u32) -> PathBuf {
        self.data().join(format!("node-{number}")).join("data")
    }

    /// Configuration of node `number`.
    #[must_use]
    pub fn node_config(&self, number: u32) -> PathBuf {
        self.data().join(format!("node-{number}")).join("node.toml")
    }

    /// Kills every node at once, without any warning, and waits until all are gone.
    pub async fn kill_all(&mut self) -> anyhow::Result<()> {
        let nodes = self.ready()?.nodes.clone();
        for node in &nodes {
            kill(node.pid)?;
        }
        self.gone().await
    }

    /// Waits until `up` has noticed that every node is gone, and has ended.
    async fn gone(&mut self) -> anyhow::Result<()> {
        let mut up = self.up.take().context("the cluster does not run")?;
        self.ready = None;
        if timeout(GONE_WITHIN, up.wait()).await.is_err() {
            up.kill().await?;
            bail!("up did not end after its nodes were killed:\n{}", self.last_words());
        }
        Ok(())
    }

    /// Asks for a clean stop and waits for it.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if !self.by_hand.is_empty() {
            for number in self.by_hand.keys().copied().collect::<Vec<_>>() {
                self.stop_node(number).await?;
            }
            self.ready = None;
            return Ok(());
        }
        let mut up = self.up.take().context("the cluster does not run")?;
        self.ready = None;
        let pid = up.id().context("up has ended by itself")?;
        // SAFETY: plain system call; our own child, not yet waited for.
        unsafe { libc::kill(pid as i32, libc::SIGTERM) };
        let status = timeout(STOP_WITHIN, up.wait()).await.with_context(|| format!("no stop:\n{}", self.last_words()))??;
        ensure!(status.success(), "stopped with {status}:\n{}", self.last_words());
        Ok(())
    }

    /// Fails when a node has ended or said that it panicked.
    pub fn unharmed(&self) -> anyhow::Result<()> {
        for node in &self.ready()?.nodes {
            ensure!(is_alive(node.pid), "node {} has ended:\n{}", node.id, self.last_words());
        }
        let said = self.everything_said();
        ensure!(!said.contains("panicked at"), "a node panicked:\n{}", self.last_words());
        Ok(())
    }

    /// Clients of the admin service of every node.
    pub fn admin(&self) -> anyhow::Result<AdminCluster> {
        Ok(AdminEndpoint::from_ready_file(&self.ready_file(), Worlds::Only)?.connect(&TokioTransport)?)
    }

    /// Compares all replicas.
    pub async fn verify(&self) -> anyhow::Result<VerifyReport> {
        Ok(verify(&self.admin()?, VERIFY_WITHIN).await?)
    }

    /// The region as its owner has it now.
    pub async fn region(&self) -> anyhow::Result<InspectReply> {
        let admin = self.admin()?;
        let mut last = String::new();
        for _ in 0..100 {
            for node in &admin.nodes {
                let owner = node.status().await.is_ok_and(|s| s.groups.iter().any(|g| g.group == REGION.0 && g.owner));
                if !owner {
                    continue;
                }
                match node.inspect(REGION, CutNumber(0)).await {
                    Ok(reply) if reply.code == 0 => return Ok(reply),
                    Ok(reply) => last = format!("code {}: {}", reply.code, reply.reason),
                    Err(error) => last = error.to_string(),
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("the region can not be looked at: {last}")
    }

    /// The region as the checker wants it.
    pub async fn at_the_end(&self) -> anyhow::Result<AtTheEnd> {
        let region = self.region().await?;
        let sessions = region.sessions.into_iter().map(|session| {
            let end = SessionAtTheEnd { epoch: session.epoch, applied: session.applied_seq, items: session.items };
            (session.name, end)
        });
        Ok(AtTheEnd { sessions: sessions.collect(), items: region.items })
    }

    /// The last lines of everything that the processes said.
    #[must_use]
    pub fn last_words(&self) -> String {
        let tail = |text: &str| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(12)..].join("\n")
        };
        self.logs().iter().map(|(name, text)| format!("--- {name}\n{}\n", tail(text))).collect()
    }

    fn everything_said(&self) -> String {
        self.logs().into_iter().map(|(_, text)| text).collect()
    }

    fn logs(&self) -> Vec<(String, String)> {
        let nodes = (1..=9).map(|k| self.data().join(format!("node-{k}/node.log")));
        let files = std::iter::once(self.folder.join("up.log")).chain(nodes);
        files.filter_map(|path| Some((path.display().to_string(), std::fs::read_to_string(&path).ok()?))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A test that failed half-way. The nodes are told by the kernel when `up` is gone, but must not be waited for.
        for node in self.ready.iter().flat_map(|ready| &ready.nodes) {
            if self.up.is_some() {
                let _ = kill(node.pid);
            }
        }
    }
}

/// Whether a process is there and not merely waiting to be reaped.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands after the name, which is in parentheses and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Sends a signal to a child of the caller's that was not waited for.
pub fn signal(pid: u32, signal: i32) -> anyhow::Result<()> {
    // SAFETY: plain system call; by what the caller promises, the id is still the child's own.
    let sent = unsafe { libc::kill(i32::try_from(pid)?, signal) };
    ensure!(sent == 0, "signal {signal} to {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Kills a node. Its id comes from the ready file of a running `up`, which has not reaped it.
pub fn kill(pid: u32) -> anyhow::Result<()> {
    ensure!(pid > 1, "no process id: {pid}");
    // SAFETY: plain system call.
    let failed = unsafe { libc::kill(pid as i32, libc::SIGKILL) } != 0;
    ensure!(!failed, "can not kill {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A base port whose whole block is free. Others may take one meanwhile; then `up` says so, and the run fails.
fn free_base_port() -> anyhow::Result<u16> {
    let blocks = (PORTS_TO - PORTS_FROM) / PORTS_APART;
    // Runs that begin at the same time look at different places first.
    let first = (std::process::id() as u16).wrapping_mul(7) % blocks;
    let bases = (0..blocks).map(|i| PORTS_FROM + (first + i) % blocks * PORTS_APART);
    let free = |base: &u16| {
        let mut ports = [100, 200, 300].into_iter().flat_map(|offset| (1..=3).map(move |k| base + offset + k));
        ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    bases.into_iter().find(free).context("no block of ports is free")
}
