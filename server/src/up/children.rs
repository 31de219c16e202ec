//! The node processes of `up`: started, watched, restarted, and stopped cleanly.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a node may take to stop cleanly before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// One node process.
pub struct NodeProcess {
    /// Its number.
    pub node: u32,
    config: PathBuf,
    log: PathBuf,
    pin: Option<usize>,
    child: Child,
    /// How often it was started anew.
    pub restarts: u32,
}

impl NodeProcess {
    /// Starts the node. Its output goes to `log`, after what is there. With `pin` it runs on that processor alone.
    pub fn start(node: u32, config: &Path, log: &Path, pin: Option<usize>) -> io::Result<Self> {
        let child = spawn(config, log, pin)?;
        Ok(Self { node, config: config.to_owned(), log: log.to_owned(), pin, child, restarts: 0 })
    }

    /// Its process id; `None` when it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. Cancel-safe.
    pub async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Starts it again after it ended.
    pub fn restart(&mut self) -> io::Result<()> {
        self.child = spawn(&self.config, &self.log, self.pin)?;
        self.restarts += 1;
        Ok(())
    }

    /// Asks it to stop at once: the others stop as well, so nothing is handed over.
    pub fn ask_to_stop(&self) {
        if let Err(error) = self.signal(libc::SIGINT) {
            tracing::warn!(node = self.node, %error, "could not ask the node to stop");
        }
    }

    /// Sends it a signal; nothing if it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let Some(pid) = self.child.id() else { return Ok(()) };
        // SAFETY: plain system call; the process is our child and not yet reaped, so the id is still its own.
        match unsafe { libc::kill(pid as i32, signal) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until it has stopped; kills it when that takes too long. Tells whether it stopped cleanly.
    pub async fn stopped(&mut self) -> bool {
        match timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) => status.success(),
            Ok(Err(error)) => {
                tracing::error!(node = self.node, %error, "could not wait for the node");
                false
            }
            Err(_) => {
                tracing::error!(node = self.node, "node did not stop within {} s and was killed", STOP_WITHIN.as_secs());
                if let Err(error) = self.child.kill().await {
                    tracing::error!(node = self.node, %error, "could not kill the node");
                }
                false
            }
        }
    }

    /// The last lines that it printed, for an error message.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_else(|e| format!("(no log: {e})"));
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

fn spawn(config: &Path, log: &Path, pin: Option<usize>) -> io::Result<Child> {
    let out = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("node")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        // Ctrl-C goes to `up` alone, which then stops the nodes in order.
        .process_group(0);
    pin_child(&mut command, pin);
    command.spawn()
}

/// Makes a child stop with its parent, and keeps it on one processor if one is named.
pub(crate) fn pin_child(command: &mut Command, cpu: Option<usize>) {
    // SAFETY: between fork and exec only these two async-signal-safe calls are made.
    unsafe {
        command.pre_exec(move || {
            if let Some(cpu) = cpu {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(cpu, &mut set);
                if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            // When the parent dies by whatever cause, its nodes stop cleanly instead of running on unseen.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
