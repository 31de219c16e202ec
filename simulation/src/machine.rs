//! A simulated machine, which one runs at this moment, and whether it still has power.
//!
//! All machines share one thread, a turn each. Whoever is called from inside one (a crash point, an observer, the trace) learns
//! whose turn it is from the tokio runtime that is entered: every boot of a machine has its own.
//!
//! Code can not be stopped in the middle of a function, so a machine that dies there runs on for a moment as a *ghost*: its
//! disk image is already taken, nothing it sends leaves it, and nothing it reports is heard.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use marchland_types::NodeId;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use crate::hardware::Hardware;
use crate::interpose;
use crate::runtime;
use crate::seed::Seed;
use crate::trace::{self, MachineState, Mark};

/// Whether one boot of a machine still has power. Clones share it.
#[derive(Clone, Debug)]
pub struct Power(Arc<AtomicBool>);

impl Power {
    /// Power that is on.
    #[must_use]
    pub fn on() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Whether it is still on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes it away for good: the next boot has its own.
    pub fn cut(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A machine's name: `n1`, `edge`, `ann`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineName(Rc<str>);

impl MachineName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a node that hosts replicas: `n1`, `n2`, …
    #[must_use]
    pub fn is_node(&self) -> bool {
        self.node().is_some()
    }

    /// The number of a node that hosts replicas.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.0.strip_prefix('n').filter(|text| is_number(text))?.parse().ok().map(NodeId)
    }

    /// Whether it is a node that only terminates players: `edge`, or `e1`, `e2`, …
    #[must_use]
    pub fn is_edge(&self) -> bool {
        &*self.0 == "edge" || self.0.strip_prefix('e').is_some_and(is_number)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

impl From<&str> for MachineName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a machine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its software runs.
    Running,
    /// It has died in the middle of a function, and is a ghost until the step is over.
    Ghost {
        /// Whether it has lost its power; else its process was killed.
        dark: bool,
    },
    /// Its software returned by itself; the reason if that was an error.
    Exited(Result<(), String>),
    /// It is down: killed, or (`dark`) without power, so that it answers nobody.
    Down {
        /// Whether the network is silent towards it as well.
        dark: bool,
    },
}

/// A machine. Its hardware outlives its boots.
pub(crate) struct Machine {
    pub(crate) name: MachineName,
    pub(crate) seed: Seed,
    pub(crate) boots: Cell<u32>,
    pub(crate) power: RefCell<Power>,
    pub(crate) phase: RefCell<Phase>,
    pub(crate) hardware: RefCell<Hardware>,
    /// Faults under way that excuse an exit with an error.
    pub(crate) excuses: Cell<u32>,
    /// It met one of them, and may exit for it until it boots again.
    pub(crate) doomed: Cell<bool>,
    /// It stands still.
    pub(crate) pause: Cell<Option<Pause>>,
    /// It stands still again and again, for up to this long.
    pub(crate) stutter: Cell<Option<Duration>>,
    pub(crate) stuttered: Cell<u64>,
    chance: RefCell<Pcg64Mcg>,
    /// How much too fast its clocks run, in parts per million.
    pub(crate) drift_ppm: Cell<i64>,
    /// Time that it is owed, in nanoseconds: runtimes count whole milliseconds.
    owed_ns: Cell<i64>,
}

/// A machine stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// Time of the world at its beginning.
    pub(crate) since: Duration,
    /// At its end; without one, until somebody says so.
    pub(crate) until: Option<Duration>,
    /// The machine's clock has jumped to the end already: it stopped in the middle of a function, which saw the jump.
    pub(crate) clock_is_ahead: bool,
}

/// Of how many steps a machine that stutters misses one.
const STUTTERS_ONE_IN: u32 = 60;

impl Machine {
    pub(crate) fn new(name: &str, seed: Seed, lying_disk: bool) -> Rc<Self> {
        Rc::new(Self {
            name: name.into(),
            seed,
            boots: Cell::new(0),
            power: RefCell::new(Power::on()),
            phase: RefCell::new(Phase::Running),
            hardware: RefCell::new(Hardware::new(seed, name, lying_disk)),
            excuses: Cell::new(0),
            doomed: Cell::new(false),
            pause: Cell::new(None),
            stutter: Cell::new(None),
            stuttered: Cell::new(0),
            chance: RefCell::new(seed.stream(&format!("stutter {name}"))),
            drift_ppm: Cell::new(0),
            owed_ns: Cell::new(0),
        })
    }

    /// Tells the trace what the machine does from here on.
    pub(crate) fn tell(&self, state: MachineState, text: fmt::Arguments<'_>) {
        trace::event(|| Mark::Machine { name: self.name.clone(), state }, text);
    }

    pub(crate) fn is_running(&self) -> bool {
        *self.phase.borrow() == Phase::Running
    }

    /// Whether its software may exit with an error.
    pub(crate) fn is_excused(&self) -> bool {
        self.excuses.get() > 0 || self.doomed.get()
    }

    /// Power fails at this very moment. May be called by the machine's own code. `false` if it was not running.
    pub(crate) fn cut_power(&self, why: fmt::Arguments<'_>) -> bool {
        if !self.is_running() {
            return false;
        }
        self.tell(MachineState::Ghost, format_args!("POWER LOSS of {} {why}", self.name));
        self.power.borrow().cut();
        // By the moment, not by the number of the boot: an earlier fault that is taken out of a plan changes nothing here.
        let chance = self.seed.number(&format!("power loss {} {}", self.name, interpose::driver_time().as_millis()));
        self.hardware.borrow_mut().take_image_after_power_loss(chance);
        self.phase.replace(Phase::Ghost { dark: true });
        true
    }

    /// The machine's process is killed at this very statement of its own code: what it has written and sent stays. `false` if it was
    /// not running.
    pub(crate) fn kill_here(&self, why: fmt::Arguments<'_>) -> bool {
        if !self.is_running() {
            return false;
        }
        self.tell(MachineState::Ghost, format_args!("KILL of {} {why}", self.name));
        self.power.borrow().cut();
        self.hardware.borrow_mut().take_image_after_kill();
        self.phase.replace(Phase::Ghost { dark: false });
        true
    }

    /// The machine stands still at this very statement of its own code: the next one finds a clock that has jumped.
    pub(crate) fn pause_here(&self, time: Duration, why: fmt::Arguments<'_>) {
        if self.is_running() && self.pause.get().is_none() {
            self.tell(MachineState::Paused, format_args!("PAUSE of {} for {time:?} {why}", self.name));
            let since = interpose::driver_time();
            self.pause.set(Some(Pause { since, until: Some(since + time), clock_is_ahead: true }));
            runtime::skip_here(time);
        }
    }

    /// Whole milliseconds that it may run of a step, as its clock has it.
    pub(crate) fn share_of(&self, step: Duration) -> Duration {
        let step_ns = step.as_nanos() as i64;
        let owed_ns = self.owed_ns.get() + step_ns + step_ns * self.drift_ppm.get() / 1_000_000;
        let share_ms = owed_ns / 1_000_000;
        self.owed_ns.set(owed_ns - share_ms * 1_000_000);
        Duration::from_millis(share_ms as u64)
    }

    /// Whether it misses this step and some more.
    pub(crate) fn stutters(&self, now: Duration) -> Option<Pause> {
        let up_to_ms = self.stutter.get()?.as_millis() as u64;
        let mut chance = self.chance.borrow_mut();
        if chance.random_range(0..STUTTERS_ONE_IN) > 0 {
            return None;
        }
        self.stuttered.set(self.stuttered.get() + 1);
        let time = Duration::from_millis(chance.random_range(5..=up_to_ms.max(5)));
        Some(Pause { since: now, until: Some(now + time), clock_is_ahead: false })
    }
}

thread_local! {
    static RUNNING: RefCell<Vec<(tokio::runtime::Id, Rc<Machine>)>> = const { RefCell::new(Vec::new()) };
    /// Set while the driver takes a machine's tasks down: destructors are not the machine's doing.
    static BURYING: Cell<bool> = const { Cell::new(false) };
}

/// Called by a machine's first task at each boot.
pub(crate) fn booted(machine: &Rc<Machine>) {
    let runtime = tokio::runtime::Handle::current().id();
    RUNNING.with(|running| {
        let mut running = running.borrow_mut();
        running.retain(|(id, other)| *id != runtime && other.name != machine.name);
        running.push((runtime, machine.clone()));
    });
}

/// Runs `take_down` while nothing that is reported is heard.
pub(crate) fn bury<R>(take_down: impl FnOnce() -> R) -> R {
    BURYING.set(true);
    let result = take_down();
    BURYING.set(false);
    result
}

/// The machine whose turn it is; `None` for the driver.
pub(crate) fn current() -> Option<Rc<Machine>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?.id();
    RUNNING.with(|running| running.try_borrow().ok()?.iter().find(|(id, _)| *id == runtime).map(|(_, m)| m.clone()))
}

/// Whether what is reported now comes from a machine that is no more.
#[must_use]
pub fn is_ghost() -> bool {
    BURYING.get() || current().is_some_and(|machine| !machine.power.borrow().is_on())
}

/// Name of the machine whose turn it is, `-` for the driver.
#[must_use]
pub fn current_name() -> MachineName {
    current().map_or_else(|| "-".into(), |machine| machine.name.clone())
}
