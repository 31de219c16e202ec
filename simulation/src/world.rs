//! Machines on a simulated network, stepped a millisecond at a time by whoever drives the run.
//!
//! Each machine has a runtime of its own with a clock that only moves here, and all share the wires. So power can fail in the middle of a
//! function, hardware outlives a boot, a machine can stand still while the others go on, and faults of the network may overlap.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::hardware::Hardware;
use crate::interpose;
use crate::machine::{self, Machine, MachineName, Pause, Phase};
use crate::net::SimTransport;
use crate::oracle::Violation;
use crate::panics;
use crate::runtime::MachineRuntime;
use crate::seams::SimEntropy;
use crate::seed::Seed;
use crate::trace::MachineState;
use crate::trace_line;
use crate::wire::Wire;

/// What a machine's software is given at each boot.
#[derive(Clone)]
pub struct Boot {
    /// The machine's name, which is also its address on the network.
    pub name: MachineName,
    /// Number of this boot, from 1.
    pub number: u32,
    /// The network.
    pub transport: SimTransport,
    /// Clock and disk.
    pub hardware: Hardware,
    /// Entropy of this boot.
    pub entropy: SimEntropy,
}

/// How the network is.
#[derive(Clone, Copy, Debug)]
pub struct NetworkOptions {
    /// Least time that a packet takes.
    pub latency_min: Duration,
    /// Most time that a packet takes; most take far less.
    pub latency_max: Duration,
}

/// Length of a step. Timers of machines fire within it to the millisecond anyway.
const STEP: Duration = Duration::from_millis(1);
/// What a machine runs at each boot.
type Software = Box<dyn Fn(Boot) -> Pin<Box<dyn Future<Output = anyhow::Result<()>>>>>;

/// The machines and the network between them.
pub struct World {
    seed: Seed,
    elapsed: Duration,
    wire: Wire,
    machines: Vec<Rc<Machine>>,
    software: Vec<Software>,
    runtimes: Vec<Option<MachineRuntime>>,
    lying_disks: bool,
    replaced_a_disk: bool,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: Seed, network: NetworkOptions) -> Self {
        Self {
            seed,
            elapsed: Duration::ZERO,
            wire: Wire::new(seed, network.latency_min, network.latency_max),
            machines: Vec::new(),
            software: Vec::new(),
            runtimes: Vec::new(),
            lying_disks: false,
            replaced_a_disk: false,
        }
    }

    /// Gives the machines that are added from here on disks that say that they have synced, and have not.
    pub fn plant_lying_disks(&mut self) {
        self.lying_disks = true;
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// Time since the simulation began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Adds a machine that runs `software` at every boot, and boots it.
    pub fn add<F, Fut>(&mut self, name: &str, software: F)
    where
        F: Fn(Boot) -> Fut + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        self.wire.add(name);
        self.machines.push(Machine::new(name, self.seed, self.lying_disks));
        self.software.push(Box::new(move |boot| Box::pin(software(boot))));
        self.runtimes.push(None);
        self.boot(self.machines.len() - 1);
    }

    fn boot(&mut self, position: usize) {
        let machine = self.machines[position].clone();
        interpose::set_driver_time(self.elapsed);
        machine.phase.replace(Phase::Running);
        machine.doomed.set(false);
        machine.pause.set(None);
        machine.boots.set(machine.boots.get() + 1);
        let (number, power) = (machine.boots.get(), machine::Power::on());
        machine.power.replace(power.clone());
        self.wire.process_starts(position);
        let boot = Boot {
            name: machine.name.clone(),
            number,
            transport: SimTransport::new(self.wire.clone(), position, power),
            hardware: machine.hardware.borrow().clone(),
            entropy: SimEntropy::new(machine.seed, machine.name.as_str(), number),
        };
        let work = (self.software[position])(boot);
        let name = machine.name.clone();
        let software = async move {
            machine::booted(&machine);
            machine.tell(MachineState::Up { boot: number }, format_args!("boot {number}"));
            let end = work.await.map_err(|error| format!("{error:#}"));
            if machine.is_running() {
                machine.tell(MachineState::Exited, format_args!("exits: {end:?}"));
                machine.phase.replace(Phase::Exited(end));
            }
            // The driver takes the machine down at the end of the step, with what its software left running.
            pending::<()>().await;
        };
        self.runtimes[position] = Some(MachineRuntime::start(self.seed, name.as_str(), number, software));
    }

    /// Every machine's name, in the order in which they were added.
    #[must_use]
    pub fn names(&self) -> Vec<MachineName> {
        self.machines.iter().map(|m| m.name.clone()).collect()
    }

    /// Nodes that host replicas are machines `n1`, `n2`, …: all of them, beginning with this one.
    #[must_use]
    pub fn nodes_from(&self, first: &MachineName) -> Vec<MachineName> {
        let mut nodes: Vec<MachineName> = self.names().into_iter().filter(MachineName::is_node).collect();
        if let Some(at) = nodes.iter().position(|node| node == first) {
            nodes.rotate_left(at);
        }
        nodes
    }

    /// Nodes that only terminate players are machines `e1`, `e2`, … or `edge`.
    #[must_use]
    pub fn edges(&self) -> Vec<MachineName> {
        self.names().into_iter().filter(MachineName::is_edge).collect()
    }

    /// All nodes and edges.
    #[must_use]
    pub fn site(&self) -> Vec<MachineName> {
        self.names().into_iter().filter(|name| name.is_node() || name.is_edge()).collect()
    }

    /// Whether a machine's software runs.
    #[must_use]
    pub fn is_running(&self, name: &MachineName) -> bool {
        self.machines[self.position(name)].is_running()
    }

    /// Whether some machine stands still.
    pub fn stands_still(&self) -> bool {
        self.machines.iter().any(|machine| machine.is_running() && machine.pause.get().is_some())
    }

    /// From here on a machine's software may exit with an error: what it stands on was made to fail.
    pub fn excuse(&mut self, name: &MachineName) {
        let excuses = &self.machines[self.position(name)].excuses;
        excuses.set(excuses.get() + 1);
    }

    /// Undoes one [`World::excuse`]. What has already failed, and has still to find that it must stop, may do so until its next boot.
    pub fn excuse_no_more(&mut self, name: &MachineName, failed: bool) {
        let machine = &self.machines[self.position(name)];
        machine.excuses.set(machine.excuses.get().saturating_sub(1));
        machine.doomed.set(machine.doomed.get() || (failed && machine.is_running()));
    }

    /// What a machine is doing.
    #[must_use]
    pub fn phase(&self, name: &MachineName) -> Phase {
        self.machines[self.position(name)].phase.borrow().clone()
    }

    /// A machine's clock and disk.
    #[must_use]
    pub fn hardware(&self, name: &MachineName) -> Hardware {
        self.machines[self.position(name)].hardware.borrow().clone()
    }

    fn position(&self, name: &MachineName) -> usize {
        self.machines.iter().position(|m| m.name == *name).unwrap_or_else(|| panic!("no machine {name}"))
    }

    /// Moves everything a millisecond on.
    pub fn step(&mut self) -> Result<(), Violation> {
        interpose::set_driver_time(self.elapsed);
        self.wire.deliver(self.elapsed);
        for position in 0..self.machines.len() {
            self.run(position)?;
        }
        self.elapsed += STEP;
        interpose::set_driver_time(self.elapsed);
        for position in 0..self.machines.len() {
            let phase = self.machines[position].phase.borrow().clone();
            match phase {
                Phase::Ghost { dark } => self.take_down(position, dark),
                Phase::Exited(end) if self.runtimes[position].is_some() => {
                    let machine = self.machines[position].clone();
                    machine.hardware.borrow_mut().take_image_after_kill();
                    self.bury(position, false);
                    if let Err(error) = end
                        && !machine.is_excused()
                    {
                        return Err(Violation::new("software-stays-up", format!("{} exited: {error}", machine.name)));
                    }
                }
                Phase::Exited(_) | Phase::Running | Phase::Down { .. } => {}
            }
        }
        Ok(())
    }

    /// Gives a machine its share of a step.
    fn run(&mut self, position: usize) -> Result<(), Violation> {
        let machine = &self.machines[position];
        let Some(runtime) = &self.runtimes[position] else { return Ok(()) };
        if let Some(pause) = machine.pause.get() {
            if pause.until.is_none_or(|until| self.elapsed < until) {
                return Ok(());
            }
            machine.pause.set(None);
            trace_line!("{} runs again", machine.name);
            if !pause.clock_is_ahead {
                runtime.skip(self.elapsed.saturating_sub(pause.since));
            }
        }
        if machine.is_running()
            && let Some(pause) = machine.stutters(self.elapsed)
        {
            machine.pause.set(Some(pause));
            return Ok(());
        }
        let time = machine.share_of(STEP);
        if time.is_zero() {
            return Ok(());
        }
        // One that was caught (a game's rule that panicked, and was refused) is not the one that may come now.
        drop(panics::take());
        let ran = catch_unwind(AssertUnwindSafe(|| runtime.run(time, &self.wire, self.elapsed)));
        if ran.is_ok() {
            return Ok(());
        }
        self.wire.turn_ends();
        let panic = panics::take();
        // What a ghost does while it falls is nobody's concern.
        if panic.as_ref().is_some_and(|panic| panic.by_ghost) {
            return Ok(());
        }
        Err(Violation::new("no-panic", panic.map_or_else(|| "unknown".to_owned(), |panic| panic.to_string())))
    }

    /// Takes a machine's power away, as of now. `false` if it was not running.
    pub fn cut_power(&mut self, name: &MachineName) -> bool {
        self.machines[self.position(name)].cut_power(format_args!(""))
    }

    /// Puts an empty disk into a machine that has no power.
    pub fn replace_disk(&mut self, name: &MachineName) {
        trace_line!("{name} has an empty disk");
        let seed = self.seed.number(&format!("replaced disk {name}"));
        self.machines[self.position(name)].hardware.borrow_mut().replace_disk(seed);
        self.replaced_a_disk = true;
    }

    /// Whether any machine has had its disk replaced.
    #[must_use]
    pub fn has_replaced_a_disk(&self) -> bool {
        self.replaced_a_disk
    }

    /// Ends a machine's software as `kill -9` does: its connections are reset, what it wrote stays. `false` if it was not running.
    pub fn kill(&mut self, name: &MachineName) -> bool {
        let position = self.position(name);
        if !self.machines[position].is_running() {
            return false;
        }
        trace_line!("KILL of {name}");
        self.machines[position].hardware.borrow_mut().take_image_after_kill();
        self.take_down(position, false);
        true
    }

    /// Boots a machine that is down or has exited. `false` if it was running.
    pub fn start(&mut self, name: &MachineName) -> bool {
        let position = self.position(name);
        let phase = self.machines[position].phase.borrow().clone();
        match phase {
            Phase::Running => return false,
            Phase::Ghost { dark } => self.take_down(position, dark),
            Phase::Exited(_) => self.bury(position, false),
            Phase::Down { .. } => {}
        }
        self.boot(position);
        true
    }

    /// A machine stands still from here on: its process, not its clock, and not the network up to its sockets. `false` if there is
    /// nothing to stop.
    pub fn pause(&mut self, name: &MachineName) -> bool {
        let machine = &self.machines[self.position(name)];
        if !machine.is_running() || machine.pause.get().is_some() {
            return false;
        }
        machine.tell(MachineState::Paused, format_args!("PAUSE of {name}"));
        machine.pause.set(Some(Pause { since: self.elapsed, until: None, clock_is_ahead: false }));
        true
    }

    /// Undoes [`World::pause`]: everything that was due meanwhile is overdue.
    pub fn resume(&mut self, name: &MachineName) {
        let machine = &self.machines[self.position(name)];
        if let Some(pause) = machine.pause.get().filter(|_| machine.is_running()) {
            machine.tell(MachineState::Up { boot: machine.boots.get() }, format_args!("RESUME of {name}"));
            machine.pause.set(Some(Pause { until: Some(self.elapsed), ..pause }));
        }
    }

    /// A machine stands still again and again, for up to this long: its timers are late, and skip.
    pub fn stutter(&mut self, name: &MachineName, up_to: Option<Duration>) {
        self.machines[self.position(name)].stutter.set(up_to);
    }

    /// How often a machine has stuttered.
    #[must_use]
    pub fn stuttered(&self, name: &MachineName) -> u64 {
        self.machines[self.position(name)].stuttered.get()
    }

    /// All of a machine's clocks run this much too fast, or too slow, from here on.
    pub fn drift(&mut self, name: &MachineName, parts_per_million: i64) {
        self.machines[self.position(name)].drift_ppm.set(parts_per_million);
    }

    /// Holds every packet from and to a machine until it is [`World::rejoin`]ed: what TCP makes of a network that is cut, because
    /// it sends again. May be done several times over.
    pub fn isolate(&mut self, name: &MachineName) {
        for other in self.others(name) {
            self.block(name, &other);
            self.block(&other, name);
        }
    }

    /// Undoes one [`World::isolate`].
    pub fn rejoin(&mut self, name: &MachineName) {
        for other in self.others(name) {
            self.unblock(name, &other);
            self.unblock(&other, name);
        }
    }

    /// Holds every packet from one machine to another until it is [`World::unblock`]ed as often.
    pub fn block(&mut self, from: &MachineName, to: &MachineName) {
        self.wire.block(self.position(from), self.position(to));
    }

    /// Undoes one [`World::block`].
    pub fn unblock(&mut self, from: &MachineName, to: &MachineName) {
        self.wire.unblock(self.position(from), self.position(to));
    }

    fn others(&self, name: &MachineName) -> Vec<MachineName> {
        self.names().into_iter().filter(|other| other != name).collect()
    }

    /// How long packets take at most when no fault slows them.
    #[must_use]
    pub fn latency_max(&self) -> Duration {
        self.wire.latency_max()
    }

    /// Makes packets take up to this long, everywhere or on the links of one machine. Of several such faults the worst counts.
    pub fn slow_down(&mut self, machine: Option<&MachineName>, latency_max: Duration) {
        self.wire.slow_down(machine.map(|name| self.position(name)), latency_max);
    }

    /// Undoes one [`World::slow_down`] with the same arguments.
    pub fn speed_up(&mut self, machine: Option<&MachineName>, latency_max: Duration) {
        self.wire.speed_up(machine.map(|name| self.position(name)), latency_max);
    }

    fn take_down(&mut self, position: usize, dark: bool) {
        let machine = self.machines[position].clone();
        machine.tell(MachineState::Down, format_args!("{} is down", machine.name));
        self.bury(position, dark);
        machine.phase.replace(Phase::Down { dark });
    }

    /// Takes what a machine ran from it. A dead machine closes no connection: what its streams say when they are dropped goes nowhere.
    fn bury(&mut self, position: usize, dark: bool) {
        self.machines[position].power.borrow().cut();
        self.wire.process_ends(position, dark);
        interpose::set_driver_time(self.elapsed);
        let runtime = self.runtimes[position].take();
        machine::bury(|| drop(runtime));
    }
}

#[cfg(test)]
mod tests;
