//! What a history and the state at the end contradict. Pure.
//!
//! - An acknowledged command is there: the server never expects a number again that it acknowledged, and the session's counter
//!   at the end has passed every acknowledged one. The counter of commands has no gaps, so "past it" means "applied".
//! - What was shown is never taken back: ticks do not go back over any reconnection.
//! - A command has at most one answer, a settled action exactly one; replies are numbered without gaps.
//! - An item that somebody was told to have got exists, was got by minting once, and is held by whoever got it last and did
//!   nothing since that could have changed it.
//! - Every operation succeeded at least once: otherwise the run has shown nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Event, Fact, Op};

/// The world when everything has come to rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtTheEnd {
    /// Every session, by the character's name.
    pub sessions: BTreeMap<String, SessionAtTheEnd>,
    /// Every item, each copy of it.
    pub items: Vec<u64>,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionAtTheEnd {
    /// Its epoch.
    pub epoch: u64,
    /// Commands up to here are applied.
    pub applied: u64,
    /// What the character holds.
    pub items: Vec<u64>,
}

/// How often an operation was tried, and how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exercised {
    /// Sent.
    pub invoked: u64,
    /// Done, as the server said.
    pub ok: u64,
    /// Refused, as the server said.
    pub refused: u64,
    /// Never answered: it may have happened or not.
    pub unknown: u64,
}

/// What a check found, and over how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Contradictions.
    pub violations: Vec<String>,
    /// Each operation.
    pub exercised: BTreeMap<&'static str, Exercised>,
    /// Commands that were acknowledged.
    pub acknowledged: u64,
    /// Connections that were made, and how many of them went on with a session.
    pub attached: (u64, u64),
    /// Faults that were done to the cluster.
    pub faults: u64,
    /// Items that players were told to have got.
    pub items_got: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} commands acknowledged, {} items got, {} connections ({} resumed), {} faults;",
            self.acknowledged, self.items_got, self.attached.0, self.attached.1, self.faults
        )?;
        for (name, e) in &self.exercised {
            write!(f, " {name} {}/{} ok, {} refused, {} unknown;", e.ok, e.invoked, e.refused, e.unknown)?;
        }
        Ok(())
    }
}

/// Checks a whole run. `required` operations must each have succeeded at least once.
#[must_use]
pub fn check(events: &[Event], end: &AtTheEnd, required: &[&'static str]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut players: BTreeMap<&str, Player> = BTreeMap::new();
    let mut minted: BTreeMap<u64, &str> = BTreeMap::new();
    for event in events {
        match event.fact {
            Fact::Fault { .. } => {
                verdict.faults += 1;
                continue;
            }
            Fact::Healed => continue,
            _ => {}
        }
        let player = players.entry(&event.who).or_default();
        if let Err(what) = player.take(&event.fact, &mut verdict, |item| minted.insert(item, &event.who).is_none()) {
            verdict.violations.push(format!("{} ns, {}: {what}", event.t_ns, event.who));
        }
    }
    let present: BTreeSet<u64> = end.items.iter().copied().collect();
    for (name, player) in &players {
        player.finish(name, end.sessions.get(*name), &present, &mut verdict);
    }
    for name in required {
        if verdict.exercised.get(name).is_none_or(|e| e.ok == 0) {
            verdict.violations.push(format!("{name} never succeeded: this run shows nothing about it"));
        }
    }
    verdict
}

#[derive(Default)]
struct Player {
    tick: u64,
    epochs: BTreeMap<u64, Epoch>,
    /// Items that it got, with whether it did anything since that could have parted it from them.
    held: BTreeMap<u64, bool>,
    settled: Option<(u64, BTreeSet<u64>)>,
}

#[derive(Default)]
struct Epoch {
    sent: BTreeMap<u64, Op>,
    answered: BTreeSet<u64>,
    acknowledged: u64,
    last_reply: u64,
    settled: bool,
}

impl Player {
    /// Takes the next fact of this player. `mint` notes an item as minted and tells whether it is new.
    fn take(&mut self, fact: &Fact, verdict: &mut Verdict, mint: impl FnOnce(u64) -> bool) -> Result<(), String> {
        match fact {
            Fact::Attached { epoch, next_seq, resumed, .. } => {
                verdict.attached.0 += 1;
                verdict.attached.1 += u64::from(*resumed);
                let known = self.epochs.last_key_value().map_or(0, |(epoch, _)| *epoch);
                let state = self.epochs.entry(*epoch).or_default();
                if *epoch < known {
                    return Err(format!("session epoch went back from {known} to {epoch}"));
                }
                if *next_seq <= state.acknowledged {
                    let acknowledged = state.acknowledged;
                    return Err(format!("acknowledged up to {acknowledged}, but {next_seq} is expected next: commands are lost"));
                }
            }
            Fact::Shown { tick } => {
                let seen = std::mem::replace(&mut self.tick, *tick);
                if *tick < seen {
                    return Err(format!("was shown tick {seen}, and then {tick}"));
                }
            }
            Fact::Lost { tick, .. } => self.tick = self.tick.max(*tick),
            Fact::Invoke { epoch, seq, op } => {
                verdict.exercised.entry(op.name()).or_default().invoked += 1;
                self.epochs.entry(*epoch).or_default().sent.insert(*seq, *op);
                if let Op::Drop { item } = op {
                    self.held.insert(*item, false);
                }
            }
            Fact::Applied { epoch, upto } => {
                let state = self.epochs.entry(*epoch).or_default();
                let newest = state.sent.last_key_value().map_or(0, |(seq, _)| *seq);
                if *upto > newest {
                    return Err(format!("acknowledged up to {upto}, but only {newest} were sent"));
                }
                if *upto <= state.acknowledged {
                    return Ok(());
                }
                let walked = state.sent.range(state.acknowledged + 1..=*upto).filter(|(_, op)| **op == Op::Move).count() as u64;
                verdict.exercised.entry(Op::Move.name()).or_default().ok += walked;
                verdict.acknowledged += upto - state.acknowledged;
                state.acknowledged = *upto;
            }
            Fact::Reply { epoch, reply_seq, command_seq, code, items } => {
                let state = self.epochs.entry(*epoch).or_default();
                let due = std::mem::replace(&mut state.last_reply, *reply_seq) + 1;
                if *reply_seq != due {
                    return Err(format!("reply {reply_seq} where {due} was due"));
                }
                if *command_seq == 0 {
                    return Ok(());
                }
                let op = *state.sent.get(command_seq).ok_or(format!("an answer to command {command_seq}, which was not sent"))?;
                if !state.answered.insert(*command_seq) {
                    return Err(format!("a second answer to command {command_seq}"));
                }
                return self.answered(op, *code, items, verdict, mint);
            }
            Fact::Settled { epoch, applied, items } => {
                let state = self.epochs.entry(*epoch).or_default();
                state.settled = true;
                self.settled = Some((*applied, items.iter().copied().collect()));
            }
            Fact::Broken { what } => return Err(what.clone()),
            Fact::Fault { .. } | Fact::Healed => {}
        }
        Ok(())
    }

    fn answered(
        &mut self,
        op: Op,
        code: u32,
        items: &[u64],
        verdict: &mut Verdict,
        mint: impl FnOnce(u64) -> bool,
    ) -> Result<(), String> {
        let counts = verdict.exercised.entry(op.name()).or_default();
        if code != 0 {
            counts.refused += 1;
            return Ok(());
        }
        counts.ok += 1;
        match (op, items) {
            (Op::Gather, [item]) => {
                verdict.items_got += 1;
                self.held.insert(*item, true);
                if !mint(*item) {
                    return Err(format!("item {item} was gathered twice"));
                }
            }
            (Op::PickUp, [item]) => {
                self.held.insert(*item, true);
            }
            (Op::Gather | Op::PickUp, _) => return Err(format!("{} answered with {} items", op.name(), items.len())),
            (Op::Move | Op::Drop { .. } | Op::Inventory, _) => {}
        }
        Ok(())
    }

    fn finish(&self, name: &str, end: Option<&SessionAtTheEnd>, present: &BTreeSet<u64>, verdict: &mut Verdict) {
        let mut wrong = |what: String| verdict.violations.push(format!("at the end, {name}: {what}"));
        for item in self.held.keys().filter(|item| !present.contains(item)) {
            wrong(format!("item {item} is nowhere"));
        }
        let newest = self.epochs.last_key_value();
        if let Some((epoch, state)) = newest {
            match end {
                None => wrong("has no session".into()),
                Some(end) if end.epoch < *epoch => wrong(format!("epoch {} where {epoch} was in force", end.epoch)),
                Some(end) if end.epoch == *epoch && end.applied < state.acknowledged => {
                    wrong(format!("{} commands are applied, {} were acknowledged", end.applied, state.acknowledged));
                }
                Some(_) => {}
            }
        }
        if let Some(end) = end {
            let holds: BTreeSet<u64> = end.items.iter().copied().collect();
            for (item, _) in self.held.iter().filter(|(item, kept)| **kept && !holds.contains(item)) {
                wrong(format!("got item {item}, kept it, and does not hold it"));
            }
            if let Some((applied, told)) = &self.settled
                && newest.is_some_and(|(epoch, _)| *epoch == end.epoch)
                && *applied == end.applied
                && *told != holds
            {
                wrong(format!("was told to hold {told:?}, holds {holds:?}"));
            }
        }
        for (epoch, state) in &self.epochs {
            for (seq, op) in &state.sent {
                let unanswered = if *op == Op::Move { *seq > state.acknowledged } else { !state.answered.contains(seq) };
                if unanswered {
                    verdict.exercised.entry(op.name()).or_default().unknown += 1;
                    if state.settled && *seq <= state.acknowledged {
                        verdict.violations.push(format!(
                            "at the end, {name}: {} {seq} of epoch {epoch} is committed, everything has settled, and it has no answer",
                            op.name()
                        ));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
