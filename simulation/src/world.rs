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
    /// How many faults hold the link between two machines, by position in `machines`, the lower first.
    holds: BTreeMap<(usize, usize), u32>,
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
        Self { seed, sim: builder.build(), machines: Vec::new(), holds: BTreeMap::new(), lying_disks: false }
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
                    if let Phase::Exited(Err(error)) = phase {
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
            Phase::Running => return false,
            Phase::Ghost { .. } => self.take_down(position, true),
            Phase::Down { .. } | Phase::Exited(_) => {}
        }
        if *self.machines[position].phase.borrow() == (Phase::Down { dark: true }) {
            self.rejoin(name);
        }
        interpose::set_driver_time(self.sim.elapsed());
        self.machines[position].phase.replace(Phase::Running);
        self.sim.bounce(name.as_str());
        true
    }

    /// Holds every packet from and to a machine until it is [`World::rejoin`]ed: what TCP makes of a network that is cut, because
    /// it sends again. May be done several times over.
    pub fn isolate(&mut self, name: &MachineName) {
        let position = self.position(name);
        for other in (0..self.machines.len()).filter(|other| *other != position) {
            let link = (position.min(other), position.max(other));
            let holds = self.holds.entry(link).or_default();
            *holds += 1;
            if *holds == 1 {
                self.sim.hold(self.machines[position].name.as_str(), self.machines[other].name.as_str());
            }
        }
    }

    /// Undoes one [`World::isolate`].
    pub fn rejoin(&mut self, name: &MachineName) {
        let position = self.position(name);
        for other in (0..self.machines.len()).filter(|other| *other != position) {
            let link = (position.min(other), position.max(other));
            let holds = self.holds.entry(link).or_default();
            *holds = holds.saturating_sub(1);
            if *holds == 0 {
                self.sim.release(self.machines[position].name.as_str(), self.machines[other].name.as_str());
            }
        }
    }

    /// Changes how long packets may take.
    pub fn set_latency_max(&mut self, latency_max: Duration) {
        self.sim.set_max_message_latency(latency_max);
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
                // Links that other faults hold were just healed: hold them again.
                if self.holds.get(&(position.min(*other), position.max(*other))).is_some_and(|holds| *holds > 0) {
                    self.sim.hold(name.as_str(), self.machines[*other].name.as_str());
                }
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
