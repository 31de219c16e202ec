//! A game with someone who looks at every tick. To the cluster it is the game itself: every handler is the game's, and so are version and
//! hashes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use marchland_region_core::{
    Action, ActionName, BadParameters, CharacterId, Code, Context, EntityId, Entrance, Game, GroupId, Letter, Order, Refusal,
    Registry, Spawn, Timer, World,
};
use marchland_server::served::Served;

use super::{RegionInvariant, Seen, Studio};
use crate::machine;
use crate::oracle::{self, Violation};

/// A studio's game, watched.
pub(crate) struct Watched<G: Game> {
    game: Arc<G>,
    invariants: Mutex<Vec<Box<dyn RegionInvariant<G>>>>,
}

impl<G: Game> Watched<G> {
    /// What a machine of the cluster serves.
    pub(crate) fn serve<S: Studio<Game = G>>() -> anyhow::Result<Served<Self>> {
        let Served { game, parameters, map_json } = S::served()?;
        let watched = Self { game, invariants: Mutex::new(S::invariants()) };
        Ok(Served { map_json, ..Served::new(watched, parameters) })
    }
}

impl<G: Game> Game for Watched<G> {
    type Ground = G::Ground;

    fn ticked(&self, world: &World, ground: &G::Ground) {
        self.game.ticked(world, ground);
        if machine::is_ghost() {
            return;
        }
        let seen = Seen { tick: world.tick(), world, ground };
        for invariant in self.invariants.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Err(what) = invariant.look(&seen) {
                let what = format!("on {} after tick {}: {what}", machine::current_name(), seen.tick);
                oracle::report(Violation::new(invariant.name(), what));
            }
        }
    }

    fn rules_version(&self) -> u64 {
        self.game.rules_version()
    }

    fn content_hash(&self) -> u64 {
        self.game.content_hash()
    }

    fn components(&self, registry: &mut Registry) {
        self.game.components(registry);
    }

    fn actions(&self) -> &'static [ActionName] {
        self.game.actions()
    }

    fn describe(&self, action: Action<'_>) -> Option<String> {
        self.game.describe(action)
    }

    fn describe_answer(&self, action: u32, code: Code, body: &[u8]) -> Option<String> {
        self.game.describe_answer(action, code, body)
    }

    fn ground(&self, parameters: &[u8]) -> Result<G::Ground, BadParameters> {
        self.game.ground(parameters)
    }

    fn genesis(&self, ctx: &mut Context<'_, Self>) {
        self.game.genesis(&mut ctx.lend());
    }

    fn enter(&self, ctx: &mut Context<'_, Self>, character: CharacterId, name: &str) -> Spawn {
        self.game.enter(&mut ctx.lend(), character, name)
    }

    fn entered(&self, ctx: &mut Context<'_, Self>, who: EntityId, entrance: Entrance) {
        self.game.entered(&mut ctx.lend(), who, entrance);
    }

    fn leaving(&self, ctx: &mut Context<'_, Self>, who: EntityId) {
        self.game.leaving(&mut ctx.lend(), who);
    }

    fn command(&self, ctx: &mut Context<'_, Self>, who: EntityId, action: Action<'_>) -> Result<Bytes, Refusal> {
        self.game.command(&mut ctx.lend(), who, action)
    }

    fn timer(&self, ctx: &mut Context<'_, Self>, timer: Timer) {
        self.game.timer(&mut ctx.lend(), timer);
    }

    fn tick(&self, ctx: &mut Context<'_, Self>) {
        self.game.tick(&mut ctx.lend());
        super::odd::end_of_tick(ctx);
    }

    fn may_cross(&self, world: &World, who: EntityId) -> bool {
        self.game.may_cross(world, who)
    }

    fn attached(&self, world: &World, who: EntityId) -> Vec<EntityId> {
        self.game.attached(world, who)
    }

    fn carrier(&self, world: &World, who: EntityId) -> Option<EntityId> {
        self.game.carrier(world, who)
    }

    fn departing(&self, ctx: &mut Context<'_, Self>, who: EntityId, to: GroupId) {
        self.game.departing(&mut ctx.lend(), who, to);
    }

    fn arrived(&self, ctx: &mut Context<'_, Self>, who: EntityId, from: GroupId) {
        self.game.arrived(&mut ctx.lend(), who, from);
    }

    fn returned(&self, ctx: &mut Context<'_, Self>, letter: Letter<'_>) {
        self.game.returned(&mut ctx.lend(), letter);
    }

    fn letter(&self, ctx: &mut Context<'_, Self>, letter: Letter<'_>) {
        self.game.letter(&mut ctx.lend(), letter);
    }

    fn order(&self, ctx: &mut Context<'_, Self>, order: Order<'_>) -> Result<Bytes, Refusal> {
        self.game.order(&mut ctx.lend(), order)
    }

    fn max_speed(&self) -> f32 {
        self.game.max_speed()
    }

    fn speed(&self, world: &World, who: EntityId) -> f32 {
        self.game.speed(world, who)
    }

    fn linger_ms(&self) -> u64 {
        self.game.linger_ms()
    }

    fn check(&self, world: &World, ground: &G::Ground) -> Result<(), String> {
        self.game.check(world, ground)
    }
}
