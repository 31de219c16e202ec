//! Machines on a simulated network, stepped a millisecond at a time by whoever drives the run.
//!
//! Turmoil gives each machine a runtime with a paused clock, and the network between them. This module adds what it has not: power,
//! hardware that outlives a boot, machines that die in the middle of a function, and faults of the network that may overlap.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use crate::hardware::Hardware;
use crate::interpose;
use crate::machine::{self, Machine, MachineName, Phase};
use crate::net::SimTransport;
use crate::oracle::Violation;
use crate::panics;
use crate::seams::SimEntropy;
use crate::seed::Seed;
use crate::trace_line;

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
/// Segments that a TCP connection holds before its sender waits.
const TCP_SEGMENTS: usize = 4096;

/// The machines and the network between them.
pub struct World {
    seed: Seed,
    sim: turmoil::Sim<'static>,
    machines: Vec<Rc<Machine>>,
    /// How many faults block what one machine sends another, by position in `machines`.
    blocks: BTreeMap<(usize, usize), u32>,
    latency_max: Duration,
    /// What faults make of it, everywhere or on the links of one machine.
    slowed: Vec<(Option<usize>, Duration)>,
    lying_disks: bool,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: Seed, network: NetworkOptions) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(seed.number("network"))
            .epoch(UNIX_EPOCH + Duration::from_secs(interpose::EPOCH_S))
            .simulation_duration(Duration::from_secs(24 * 3600))
            .tick_duration(STEP)
            .min_message_latency(network.latency_min)
            .max_message_latency(network.latency_max)
            .tcp_capacity(TCP_SEGMENTS);
        Self {
            seed,
            sim: builder.build(),
            machines: Vec::new(),
            blocks: BTreeMap::new(),
            latency_max: network.latency_max,
            slowed: Vec::new(),
            lying_disks: false,
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
        self.sim.elapsed()
    }

    /// Adds a machine that runs `software` at every boot, and boots it.
    pub fn add<F, Fut>(&mut self, name: &str, software: F)
    where
        F: Fn(Boot) -> Fut + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        let machine = Machine::new(name, self.seed, self.lying_disks);
        self.machines.push(machine.clone());
        interpose::set_driver_time(self.sim.elapsed());
        self.sim.host(name, move || {
            let boot = boot(&machine);
            let (machine, work) = (machine.clone(), software(boot));
            async move {
                machine::booted(&machine);
                trace_line!("boot {}", machine.boots.get());
                let end = work.await.map_err(|error| format!("{error:#}"));
                if machine.is_running() {
                    trace_line!("exits: {end:?}");
                    machine.phase.replace(Phase::Exited(end));
                }
                // The driver takes the machine down at the end of the step, with what its software left running.
                pending::<()>().await;
                Ok(())
            }
        });
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

    /// Until it is started again, a machine's software may exit with an error: what it stands on was made to fail.
    pub fn excuse(&mut self, name: &MachineName) {
        self.machines[self.position(name)].excused.set(true);
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
        interpose::set_driver_time(self.sim.elapsed());
        // One that was caught (a game's rule that panicked, and was refused) is not the one that may come now.
        drop(panics::take());
        let stepped = catch_unwind(AssertUnwindSafe(|| self.sim.step()));
        interpose::set_driver_time(self.sim.elapsed());
        match stepped {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Violation::new("simulator", error)),
            Err(_) => {
                let panic = panics::take();
                // What a ghost does while it falls is nobody's concern.
                if !panic.as_ref().is_some_and(|p| p.by_ghost) {
                    return Err(Violation::new("no-panic", panic.map_or_else(|| "unknown".to_owned(), |p| p.to_string())));
                }
            }
        }
        self.pass_open_directions();
        for position in 0..self.machines.len() {
            let phase = self.machines[position].phase.borrow().clone();
            match phase {
                Phase::Ghost { steps_left: 0 } => self.take_down(position, true),
                Phase::Ghost { steps_left } => {
                    self.hurry_packets_from(position);
                    self.machines[position].phase.replace(Phase::Ghost { steps_left: steps_left - 1 });
                }
                Phase::Exited(_) if self.sim.is_host_running(self.machines[position].name.as_str()) => {
                    let name = self.machines[position].name.clone();
                    self.machines[position].hardware.borrow_mut().take_image_after_kill();
                    machine::bury(|| self.sim.crash(name.as_str()));
                    if let Phase::Exited(Err(error)) = phase
                        && !self.machines[position].excused.get()
                    {
                        return Err(Violation::new("software-stays-up", format!("{name} exited: {error}")));
                    }
                }
                Phase::Exited(_) | Phase::Running | Phase::Down { .. } => {}
            }
        }
        Ok(())
    }

    /// Takes a machine's power away, as of now. `false` if it was not running.
    pub fn cut_power(&mut self, name: &MachineName) -> bool {
        self.machines[self.position(name)].cut_power(format_args!(""))
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
            Phase::Running => {
                self.machines[position].excused.set(false);
                return false;
            }
            Phase::Ghost { .. } => self.take_down(position, true),
            Phase::Down { .. } | Phase::Exited(_) => {}
        }
        if *self.machines[position].phase.borrow() == (Phase::Down { dark: true }) {
            self.rejoin(name);
        }
        interpose::set_driver_time(self.sim.elapsed());
        self.machines[position].excused.set(false);
        self.machines[position].phase.replace(Phase::Running);
        self.sim.bounce(name.as_str());
        true
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
        let link = (self.position(from), self.position(to));
        *self.blocks.entry(link).or_default() += 1;
        self.settle(link);
    }

    /// Undoes one [`World::block`].
    pub fn unblock(&mut self, from: &MachineName, to: &MachineName) {
        let link = (self.position(from), self.position(to));
        let blocks = self.blocks.entry(link).or_default();
        *blocks = blocks.saturating_sub(1);
        self.settle(link);
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocks.get(&(from, to)).is_some_and(|blocks| *blocks > 0)
    }

    /// Makes a link what the faults that are under way make of it. One that is blocked in one direction is held, and what goes in
    /// the other direction is let through at every step.
    fn settle(&mut self, (a, b): (usize, usize)) {
        let (a_name, b_name) = (self.machines[a].name.clone(), self.machines[b].name.clone());
        if self.is_blocked(a, b) || self.is_blocked(b, a) {
            self.sim.hold(a_name.as_str(), b_name.as_str());
        } else {
            self.sim.release(a_name.as_str(), b_name.as_str());
        }
    }

    /// Lets packets through whose direction is open although that of the answers is not.
    fn pass_open_directions(&mut self) {
        let half_open = |(from, to): (usize, usize)| self.is_blocked(from, to) && !self.is_blocked(to, from);
        let open: Vec<_> = self.blocks.keys().copied().filter(|link| half_open(*link)).map(|(from, to)| (to, from)).collect();
        if open.is_empty() {
            return;
        }
        let address = |position: usize| self.sim.lookup(self.machines[position].name.as_str());
        let open: Vec<_> = open.into_iter().map(|(from, to)| (address(from), address(to))).collect();
        self.sim.links(|links| {
            for packet in links.flatten() {
                let (from, to) = packet.pair();
                if open.contains(&(from.ip(), to.ip())) {
                    packet.deliver();
                }
            }
        });
    }

    fn others(&self, name: &MachineName) -> Vec<MachineName> {
        self.names().into_iter().filter(|other| other != name).collect()
    }

    /// How long packets take at most when no fault slows them.
    #[must_use]
    pub fn latency_max(&self) -> Duration {
        self.latency_max
    }

    /// Makes packets take up to this long, everywhere or on the links of one machine. Of several such faults the worst counts.
    pub fn slow_down(&mut self, machine: Option<&MachineName>, latency_max: Duration) {
        let machine = machine.map(|name| self.position(name));
        self.slowed.push((machine, latency_max));
        self.set_latencies();
    }

    /// Undoes one [`World::slow_down`] with the same arguments.
    pub fn speed_up(&mut self, machine: Option<&MachineName>, latency_max: Duration) {
        let machine = machine.map(|name| self.position(name));
        if let Some(found) = self.slowed.iter().position(|slowed| *slowed == (machine, latency_max)) {
            self.slowed.swap_remove(found);
        }
        self.set_latencies();
    }

    fn set_latencies(&mut self) {
        for a in 0..self.machines.len() {
            for b in a + 1..self.machines.len() {
                let here = |at: Option<usize>| at.is_none_or(|at| at == a || at == b);
                let slowed = self.slowed.iter().filter(|(at, _)| here(*at)).map(|(_, latency)| *latency).max();
                let latency = slowed.unwrap_or(self.latency_max).max(self.latency_max);
                self.sim.set_link_max_message_latency(self.machines[a].name.as_str(), self.machines[b].name.as_str(), latency);
            }
        }
    }

    /// What a machine had sent when it lost power still arrives.
    fn hurry_packets_from(&mut self, position: usize) {
        let address = self.sim.lookup(self.machines[position].name.as_str());
        self.sim.links(|links| {
            for link in links {
                for packet in link.filter(|packet| packet.pair().0.ip() == address) {
                    packet.deliver();
                }
            }
        });
    }

    fn take_down(&mut self, position: usize, dark: bool) {
        let name = self.machines[position].name.clone();
        let others: Vec<usize> = (0..self.machines.len()).filter(|other| *other != position).collect();
        if dark {
            // A dead machine closes no connection: what its streams say when they are dropped goes nowhere.
            for other in &others {
                self.sim.partition(name.as_str(), self.machines[*other].name.as_str());
            }
        }
        interpose::set_driver_time(self.sim.elapsed());
        machine::bury(|| self.sim.crash(name.as_str()));
        self.machines[position].phase.replace(Phase::Down { dark });
        if dark {
            for other in &others {
                self.sim.repair(name.as_str(), self.machines[*other].name.as_str());
            }
            self.isolate(&name);
        }
    }
}

fn boot(machine: &Rc<Machine>) -> Boot {
    machine.boots.set(machine.boots.get() + 1);
    let power = machine::Power::on();
    machine.power.replace(power.clone());
    Boot {
        name: machine.name.clone(),
        number: machine.boots.get(),
        transport: SimTransport::new(power),
        hardware: machine.hardware.borrow().clone(),
        entropy: SimEntropy::new(machine.seed, machine.name.as_str(), machine.boots.get()),
    }
}
