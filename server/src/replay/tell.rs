//! Puts what an entry did into words and numbers.

use std::collections::BTreeMap;

use marchland_proto::codes::Code;
use marchland_proto::storage::{StoredAction, TickEntry, stored_input};
use marchland_region_core::{Action, Change, Deed, DeedOutcome, Effects, Game, Handler, ItemMove, Region, World};
use marchland_types::EntityId;

use super::filter::Filter;
use super::report::{
    CommandReport, DeedReport, EntityReport, EntryReport, HolderReport, ItemReport, MoveReport, PositionReport, SessionReport,
};

/// Bytes of an action that are shown when the game has no words for it.
const BYTES_SHOWN: usize = 32;

/// Remembers names of what may be gone when it is spoken of, and where the entity is that is asked for.
#[derive(Default)]
pub(super) struct Teller {
    names: BTreeMap<u64, String>,
    entity: Option<EntityId>,
    character: Option<u64>,
    position: Option<[f32; 3]>,
}

impl Teller {
    /// Learns everyone's name.
    pub fn meet_all(&mut self, world: &World) {
        for view in world.entities() {
            self.names.insert(view.identity.entity.0, name(world, view.identity.entity));
        }
    }

    /// Learns the names of those who came.
    pub fn meet<G: Game>(&mut self, effects: &Effects<G>, world: &World) {
        for change in effects.appeared.iter().chain(&effects.looks) {
            self.names.insert(change.entity.0, name(world, change.entity));
        }
    }

    /// Looks at where things are before an entry is applied.
    pub fn before(&mut self, filter: &Filter, world: &World) {
        self.find(filter, world);
        self.position = self.entity.and_then(|entity| world.position(entity));
    }

    fn find(&mut self, filter: &Filter, world: &World) {
        if self.entity.is_none() {
            self.entity = filter.find(world);
        }
        if let Some(character) = self.entity.and_then(|entity| world.character_of(entity)) {
            self.character = Some(character.0);
        }
    }

    fn name(&self, entity: u64) -> String {
        self.names.get(&entity).cloned().unwrap_or_else(|| format!("entity {entity}"))
    }

    /// What an entry did.
    pub fn report<G: Game>(
        &mut self,
        region: &Region<G>,
        effects: &Effects<G>,
        told: Option<&TickEntry>,
        deeds: Vec<Deed>,
        filter: &Filter,
    ) -> EntryReport {
        self.find(filter, region.world());
        let mut report = EntryReport {
            now_ms: region.now_ms(),
            moved: effects.moved.len(),
            replies: effects.replies.len(),
            area_events: effects.area_events.len(),
            cuts: effects.cuts.iter().map(|cut| cut.number.0).collect(),
            appeared: self.entities(&effects.appeared),
            changed: self.entities(&effects.looks),
            vanished: self.entities(&effects.vanished),
            ..EntryReport::default()
        };
        let mut actions: BTreeMap<(u64, u64), &StoredAction> = BTreeMap::new();
        let mut inputs = Vec::new();
        for session in told.into_iter().flat_map(|told| &told.sessions) {
            for input in &session.inputs {
                match &input.what {
                    Some(stored_input::What::Action(action)) => {
                        report.commands_sent += 1;
                        actions.insert((session.character, input.seq), action);
                    }
                    Some(stored_input::What::Move(wanted)) => {
                        report.moves += 1;
                        if Some(session.character) == self.character {
                            let duration_ms = input.duration_ms;
                            inputs.push(MoveReport { seq: input.seq, x: wanted.x, z: wanted.z, duration_ms });
                        }
                    }
                    None => {}
                }
            }
        }
        for deed in deeds {
            self.deed(region, deed, &actions, &mut report);
        }
        report.sessions = sessions(effects);
        if let Some(entity) = self.entity {
            let now = region.world().position(entity);
            if now != self.position || !inputs.is_empty() {
                report.position = Some(PositionReport { entity: entity.0, from: self.position, to: now, inputs });
            }
        }
        filter.apply(&mut report, self.entity, self.character);
        report
    }

    fn deed<G: Game>(
        &self,
        region: &Region<G>,
        deed: Deed,
        actions: &BTreeMap<(u64, u64), &StoredAction>,
        report: &mut EntryReport,
    ) {
        let items = self.items(&deed.items);
        if let (Handler::Command(who, action), Some(answer)) = (deed.handler, &deed.answer) {
            let sent = actions.get(&(answer.character.0, answer.seq.0));
            let body: &[u8] = sent.map_or(&[], |sent| &sent.body);
            report.commands.push(CommandReport {
                character: answer.character.0,
                entity: who.0,
                name: self.name(who.0),
                seq: answer.seq.0,
                action,
                what: asked(&**region.game(), action, body),
                code: answer.code,
                answer: answered(&**region.game(), action, answer.code, &answer.body),
                items,
            });
            return;
        }
        let (entity, quiet) = match deed.handler {
            Handler::Timer(_) | Handler::Tick => (None, true),
            Handler::Genesis | Handler::Letter(..) | Handler::Returned(..) | Handler::Order(_) => (None, false),
            Handler::Departing(entity) | Handler::Arrived(entity) => (Some(entity.0), items.is_empty()),
            Handler::Enter(character) => (region.world().entity_of(character).map(|entity| entity.0), false),
            Handler::Leaving(entity) => (Some(entity.0), items.is_empty()),
            Handler::Command(entity, _) => (Some(entity.0), false),
        };
        if quiet && items.is_empty() && deed.outcome == DeedOutcome::Done {
            return;
        }
        let outcome = match deed.outcome {
            DeedOutcome::Done => "done",
            DeedOutcome::Refused => "refused",
            DeedOutcome::Panicked => "panicked",
        };
        report.deeds.push(DeedReport { handler: deed.handler.to_string(), outcome, entity, items });
    }

    fn items(&self, items: &[ItemMove]) -> Vec<ItemReport> {
        let holder = |holder| HolderReport::of(holder, |entity| self.name(entity));
        let report = |moved: &ItemMove| ItemReport {
            item: moved.item.0,
            kind: moved.kind,
            from: holder(moved.from),
            to: holder(moved.to),
        };
        items.iter().map(report).collect()
    }

    fn entities(&self, changes: &[Change]) -> Vec<EntityReport> {
        let report = |change: &Change| EntityReport { entity: change.entity.0, name: self.name(change.entity.0) };
        changes.iter().map(report).collect()
    }
}

fn name(world: &World, entity: EntityId) -> String {
    match world.entity(entity) {
        Some(view) if !view.identity.name.is_empty() => view.identity.name.to_string(),
        Some(view) => format!("entity {entity} of kind {}", view.identity.kind),
        None => format!("entity {entity}"),
    }
}

fn asked<G: Game>(game: &G, code: u32, body: &[u8]) -> String {
    if let Some(words) = game.describe(Action { code, body }) {
        return words;
    }
    let named = game.actions().iter().find(|named| named.code == code);
    let name = named.map_or_else(|| format!("action {code}"), |named| named.name.to_owned());
    if body.is_empty() { name } else { format!("{name} {}", hex(body)) }
}

fn answered<G: Game>(game: &G, action: u32, code: u32, body: &[u8]) -> String {
    let known = Code::from_u32(code);
    let words = known.and_then(|known| game.describe_answer(action, known, body));
    match (known, words) {
        (Some(Code::Ok), Some(words)) => words,
        (Some(Code::Ok), None) => "done".to_owned(),
        (Some(known), Some(words)) => format!("{known:?}: {words}"),
        (Some(known), None) => format!("{known:?}"),
        (None, _) => format!("code {code}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::from("0x");
    for byte in bytes.iter().take(BYTES_SHOWN) {
        text.push_str(&format!("{byte:02x}"));
    }
    if bytes.len() > BYTES_SHOWN {
        text.push('…');
    }
    text
}

fn sessions<G: Game>(effects: &Effects<G>) -> Vec<SessionReport> {
    let why = |code: u32| Code::from_u32(code).map_or_else(|| format!("code {code}"), |code| format!("{code:?}"));
    let came = effects.attached.iter().map(|answer| SessionReport {
        character: answer.character,
        epoch: answer.epoch,
        attach: answer.attach,
        what: if answer.code == Code::Ok as u32 { "attached" } else { "refused" },
        code: answer.code,
        why: why(answer.code),
    });
    let went = effects.ended.iter().map(|end| SessionReport {
        character: end.character,
        epoch: end.epoch,
        attach: end.attach,
        what: "ended",
        code: end.code,
        why: why(end.code),
    });
    came.chain(went).collect()
}
