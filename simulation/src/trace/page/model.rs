//! What the page draws, computed from a recording: lanes of groups, machines and clients, faults, and the list of events.
//!
//! Times are in milliseconds since the simulation began.

use std::collections::BTreeMap;
use std::time::Duration;

use marchland_types::{GroupId, ReplicaId};
use serde::Serialize;

use crate::fact::Fact;
use crate::trace::{BLACKOUT, Entry, MachineState, Mark, Recording};

#[derive(Debug, Default, Serialize)]
pub(super) struct Model {
    pub(super) scenario: String,
    purpose: String,
    /// As text: JavaScript has no integers of 64 bits.
    seed: String,
    command: String,
    hash: String,
    pub(super) end: f64,
    pub(super) violation: Option<Violation>,
    world: Vec<(String, String)>,
    plan: Vec<String>,
    quiet: Option<f64>,
    pub(super) faults: Vec<Span>,
    pub(super) groups: Vec<Group>,
    pub(super) machines: Vec<Machine>,
    pub(super) clients: Vec<Client>,
    cuts: Vec<Point>,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Serialize)]
pub(super) struct Violation {
    at: f64,
    pub(super) invariant: String,
    what: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Span {
    pub(super) name: String,
    /// Whose it is: the target of a fault.
    lane: String,
    pub(super) from: f64,
    pub(super) to: f64,
    text: String,
}

#[derive(Debug, Serialize)]
struct Point {
    at: f64,
    name: String,
    text: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) terms: Vec<Term>,
}

/// A replica leads, in one term.
#[derive(Debug, Serialize)]
pub(super) struct Term {
    replica: String,
    node: u32,
    term: u64,
    pub(super) from: f64,
    pub(super) to: f64,
    /// From when on it owned its region; groups without owners have none.
    owns: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) states: Vec<Span>,
    /// Crash points that cut its power.
    points: Vec<Point>,
    /// When it was seen to have applied more.
    pub(super) ticks: Vec<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) frames: Vec<f64>,
    pub(super) blackouts: Vec<Span>,
    /// When it was told that more of its commands are applied, and how many then are.
    pub(super) acknowledged: Vec<(f64, u64)>,
    /// Sign-ins, resumes, losses of the connection.
    marks: Vec<Point>,
}

/// Time, kind, lane and text.
#[derive(Debug, Serialize)]
pub(super) struct Event(f64, &'static str, String, pub(super) String);

fn ms(at: Duration) -> f64 {
    (at.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// What is known of a client while its entries are read.
#[derive(Default)]
struct Watched {
    frames: Vec<f64>,
    applied: u64,
    acknowledged: Vec<(f64, u64)>,
    marks: Vec<Point>,
}

#[derive(Default)]
struct Reading {
    model: Model,
    machines: BTreeMap<String, Machine>,
    clients: BTreeMap<String, Watched>,
    groups: BTreeMap<GroupId, Vec<Term>>,
    open_faults: BTreeMap<u64, Span>,
}

impl Model {
    pub(super) fn of(recording: &Recording) -> Self {
        let about = &recording.about;
        let mut reading = Reading::default();
        for entry in &recording.entries {
            reading.take(entry);
        }
        let end = recording.entries.last().map_or(0.0, |entry| ms(entry.at));
        let mut model = reading.close(end);
        model.scenario.clone_from(&about.scenario);
        model.purpose.clone_from(&about.purpose);
        model.seed = about.seed.to_string();
        model.command.clone_from(&about.command);
        model.hash.clone_from(&recording.hash);
        model.violation = recording.violation().map(|(at, invariant, what)| Violation {
            at: ms(at),
            invariant: invariant.to_owned(),
            what: what.to_owned(),
        });
        model
    }
}

impl Reading {
    fn take(&mut self, entry: &Entry) {
        let at = ms(entry.at);
        let text = || entry.text.clone();
        match &entry.mark {
            Mark::Note | Mark::Log(_) | Mark::Library | Mark::Violation { .. } => {}
            Mark::Fact(fact) => self.fact(at, entry, fact),
            Mark::World { name, value } => self.model.world.push((name.clone(), value.clone())),
            Mark::Planned => self.model.plan.push(text()),
            Mark::Quiet => self.model.quiet = self.model.quiet.or(Some(at)),
            Mark::Machine { name, state } => self.machine_is(at, name.as_str(), *state, text()),
            Mark::FaultBegins { number, name, target } => {
                let span = Span { name: name.clone(), lane: target.to_string(), from: at, to: at, text: text() };
                self.open_faults.insert(*number, span);
            }
            Mark::FaultEnds { number } => {
                if let Some(span) = self.open_faults.remove(number) {
                    self.model.faults.push(Span { to: at, ..span });
                }
            }
            Mark::PointFired { point, machine } => {
                let point = Point { at, name: point.clone(), text: text() };
                self.machine(machine.as_str()).points.push(point);
            }
        }
        self.model.events.push(Event(at, entry.mark.kind(), entry.lane.clone(), text()));
    }

    fn machine(&mut self, name: &str) -> &mut Machine {
        let new = || Machine { name: name.to_owned(), states: Vec::new(), points: Vec::new(), ticks: Vec::new() };
        self.machines.entry(name.to_owned()).or_insert_with(new)
    }

    fn machine_is(&mut self, at: f64, name: &str, state: MachineState, text: String) {
        let machine = self.machine(name);
        if let Some(last) = machine.states.last_mut() {
            last.to = at;
        }
        machine.states.push(Span { name: state.name().to_owned(), lane: name.to_owned(), from: at, to: at, text });
        if !matches!(state, MachineState::Up { .. } | MachineState::Paused) {
            // A group whose leader is away has none, until another is told of.
            let left = self.groups.values_mut().filter_map(|terms| terms.last_mut());
            for term in left.filter(|term| term.to == f64::INFINITY && machine_of(term.node) == name) {
                term.to = at;
            }
        }
    }

    fn fact(&mut self, at: f64, entry: &Entry, fact: &Fact) {
        let lane = entry.lane.as_str();
        match fact {
            Fact::Leads { group, term, replica } => self.leads(at, *group, term.0, *replica),
            Fact::Owns { group, replica, owns } => {
                let terms = self.groups.entry(*group).or_default();
                if let Some(term) = terms.last_mut().filter(|term| *owns && term.replica == replica.to_string()) {
                    term.owns = term.owns.or(Some(at));
                }
            }
            Fact::Applied { .. } | Fact::StateHash { .. } => self.machine(lane).ticks.push(at),
            Fact::Acknowledged { .. } => {
                let client = self.client(lane);
                client.applied += 1;
                client.acknowledged.push((at, client.applied));
            }
            Fact::Shown { applied, .. } => {
                let client = self.client(lane);
                client.frames.push(at);
                if applied.0 > client.applied {
                    client.acknowledged.push((at, applied.0));
                }
                client.applied = applied.0;
            }
            Fact::Joined { resumed, .. } => {
                let name = if *resumed { "resumed" } else { "signed in" };
                self.client(lane).marks.push(Point { at, name: name.to_owned(), text: entry.text.clone() });
            }
            Fact::Disconnected { .. } => {
                self.client(lane).marks.push(Point { at, name: "lost".to_owned(), text: entry.text.clone() });
            }
            Fact::CutTaken { .. } => {
                self.model.cuts.push(Point { at, name: "cut".to_owned(), text: entry.text.clone() });
            }
            Fact::Bound { .. }
            | Fact::Read { .. }
            | Fact::Claimed { .. }
            | Fact::GoesOn { .. }
            | Fact::Quiet
            | Fact::Stands { .. }
            | Fact::Replied { .. }
            | Fact::Answered { .. }
            | Fact::Given { .. }
            | Fact::Final(_)
            | Fact::Served { .. } => {}
        }
    }

    fn client(&mut self, lane: &str) -> &mut Watched {
        self.clients.entry(lane.to_owned()).or_default()
    }

    fn leads(&mut self, at: f64, group: GroupId, term: u64, replica: ReplicaId) {
        let terms = self.groups.entry(group).or_default();
        if let Some(last) = terms.last_mut() {
            if last.term >= term {
                return;
            }
            last.to = last.to.min(at);
        }
        let (replica, node) = (replica.to_string(), replica.node().0);
        terms.push(Term { replica, node, term, from: at, to: f64::INFINITY, owns: None });
    }

    /// What is still under way lasts until the end.
    fn close(mut self, end: f64) -> Model {
        let mut model = self.model;
        model.end = end;
        model.faults.extend(std::mem::take(&mut self.open_faults).into_values().map(|span| Span { to: end, ..span }));
        model.faults.sort_by(|a, b| a.from.total_cmp(&b.from));
        model.groups = self.groups.into_iter().map(|(id, terms)| Group { name: id.to_string(), terms }).collect();
        for term in model.groups.iter_mut().flat_map(|group| &mut group.terms) {
            term.to = term.to.min(end);
        }
        for machine in self.machines.values_mut() {
            if let Some(last) = machine.states.last_mut() {
                last.to = end;
            }
        }
        let is_client = |machine: &Machine| self.clients.contains_key(&machine.name);
        model.machines = self.machines.into_values().filter(|machine| !is_client(machine)).collect();
        model.clients = self.clients.into_iter().map(|(name, watched)| watched.close(name, end)).collect();
        model
    }
}

impl Watched {
    fn close(self, name: String, end: f64) -> Client {
        let least = ms(BLACKOUT);
        let ends = self.frames.iter().copied().skip(1).chain([end]);
        // Whoever left and came anew was not kept waiting.
        let came_anew = |from: f64, to: f64| self.marks.iter().any(|m| m.name == "signed in" && from < m.at && m.at < to);
        let gaps = self.frames.iter().copied().zip(ends).filter(|(from, to)| to - from > least && !came_anew(*from, *to));
        let blackouts = gaps.map(|(from, to)| Span {
            name: "blackout".to_owned(),
            lane: name.clone(),
            from,
            to,
            text: format!("no frame for {:.0} ms", to - from),
        });
        Client { blackouts: blackouts.collect(), frames: self.frames, acknowledged: self.acknowledged, marks: self.marks, name }
    }
}

/// Nodes are machines `n1`, `n2`, … by their node id.
fn machine_of(node: u32) -> String {
    format!("n{node}")
}
