//! What a studio writes: the rules of a world.

use bytes::Bytes;
use marchland_proto::codes::Code;
use marchland_types::{CharacterId, EntityId, GroupId};

use crate::component::Registry;
use crate::context::Context;
use crate::entity::Spawn;
use crate::ground::Ground;
use crate::timer::Timer;
use crate::world::World;

/// How long a character stays in the world after its client was lost, unless the game says otherwise.
pub const LINGER_DEFAULT_MS: u64 = 15_000;

/// What a player's character is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// Which of the game's actions.
    pub code: u32,
    /// Its arguments, in the game's encoding, as the client sent them: at most 1,024 bytes of anything.
    pub body: &'a [u8],
}

/// Names one of the game's actions, for people and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionName {
    /// As in [`Action::code`].
    pub code: u32,
    /// Lower case.
    pub name: &'static str,
}

/// A command that was refused. It has no effect: whatever the handler wrote before is undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code that the client is answered.
    pub code: Code,
    /// Says why, in the game's encoding.
    pub body: Bytes,
}

impl Refusal {
    /// The situation does not allow it; `body` says why.
    #[must_use]
    pub fn because(body: impl Into<Bytes>) -> Self {
        Self { code: Code::Refused, body: body.into() }
    }

    /// The game has no such action.
    #[must_use]
    pub fn unknown_action() -> Self {
        Self { code: Code::UnknownAction, body: Bytes::new() }
    }

    /// The action's arguments are no arguments.
    #[must_use]
    pub fn malformed() -> Self {
        Self { code: Code::Malformed, body: Bytes::new() }
    }
}

/// A message between groups that is the game's own.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Who sent it.
    pub from: GroupId,
    /// The game's.
    pub code: u32,
    /// The character that it is for; it is in the world.
    pub to: Option<EntityId>,
    /// The game's.
    pub body: &'a [u8],
}

/// An order of an operator that is the game's own.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The game's.
    pub code: u32,
    /// The game's.
    pub body: &'a [u8],
    /// Who gave it.
    pub actor: &'a str,
}

/// How a character came into the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// For the first time: it has nothing yet.
    First,
    /// Again, with what it had.
    Return,
}

/// Parameters of a region that the game can not use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the region's parameters are not the game's: {0}")]
pub struct BadParameters(pub String);

/// The rules of a world, as pure functions of the state.
///
/// Every handler is given a [`Context`] and nothing else: what it reads there is the state, what it writes there takes effect
/// when it returns. A handler that refuses or panics has no effect at all: a command is answered, anything else is set aside.
/// Rules must not reach past the context: no clock, no randomness, no files, no maps with random order, no statics. Each replica
/// runs every handler and must get the same result, to the bit.
///
/// ```
/// use bytes::Bytes;
/// use marchland_region_core::{
///     Action, BadParameters, CharacterId, Context, EntityId, Game, OpenGround, Refusal, Registry, Spawn,
/// };
///
/// /// A meadow where one may wave.
/// struct Meadow;
///
/// impl Game for Meadow {
///     type Ground = OpenGround;
///
///     fn rules_version(&self) -> u64 {
///         1
///     }
///
///     fn content_hash(&self) -> u64 {
///         0
///     }
///
///     fn components(&self, _registry: &mut Registry) {}
///
///     fn ground(&self, _parameters: &[u8]) -> Result<OpenGround, BadParameters> {
///         Ok(OpenGround::new(100.0))
///     }
///
///     fn enter(&self, ctx: &mut Context<'_, Self>, _character: CharacterId, _name: &str) -> Spawn {
///         let random = ctx.random(0);
///         Spawn::new(1).at([random.between(10.0, 90.0), 0.0, random.between(10.0, 90.0)])
///     }
///
///     fn command(&self, ctx: &mut Context<'_, Self>, who: EntityId, action: Action<'_>) -> Result<Bytes, Refusal> {
///         match action.code {
///             1 => {
///                 ctx.shout(who, 1, Bytes::from_static(b"waves"));
///                 Ok(Bytes::new())
///             }
///             _ => Err(Refusal::unknown_action()),
///         }
///     }
/// }
/// ```
pub trait Game: Send + Sync + Sized + 'static {
    /// The ground of its worlds.
    type Ground: Ground;

    /// Raised whenever the rules change in a way that replicas must agree on.
    fn rules_version(&self) -> u64;

    /// Hash of the world's content: maps and tables.
    fn content_hash(&self) -> u64;

    /// Makes the game's components known.
    fn components(&self, registry: &mut Registry);

    /// Names of the actions.
    fn actions(&self) -> &'static [ActionName] {
        &[]
    }

    /// What an action asks for, in words, for tools that show people what was done: `drop item 7`. `None`: its name will do.
    fn describe(&self, _action: Action<'_>) -> Option<String> {
        None
    }

    /// What an action was answered, in words. `None`: the code will do.
    fn describe_answer(&self, _action: u32, _code: Code, _body: &[u8]) -> Option<String> {
        None
    }

    /// Makes the ground from the region's parameters. Depends on nothing else.
    fn ground(&self, parameters: &[u8]) -> Result<Self::Ground, BadParameters>;

    /// Fills a new world, once in its life.
    fn genesis(&self, _ctx: &mut Context<'_, Self>) {}

    /// The entity of a character that enters for the first time. A place in a wall is moved to the nearest free one.
    fn enter(&self, ctx: &mut Context<'_, Self>, character: CharacterId, name: &str) -> Spawn;

    /// A character has entered.
    fn entered(&self, _ctx: &mut Context<'_, Self>, _who: EntityId, _entrance: Entrance) {}

    /// A character is about to leave the world; it keeps its items, components and timers.
    fn leaving(&self, _ctx: &mut Context<'_, Self>, _who: EntityId) {}

    /// A player's command. What is returned is the body of the answer, at most 8 KiB.
    fn command(&self, ctx: &mut Context<'_, Self>, who: EntityId, action: Action<'_>) -> Result<Bytes, Refusal>;

    /// A timer has run down.
    fn timer(&self, _ctx: &mut Context<'_, Self>, _timer: Timer) {}

    /// Once every tick, after commands and timers and before movement. It answers to nobody, so a panic here halts the region until an
    /// operator has the entry skipped.
    fn tick(&self, _ctx: &mut Context<'_, Self>) {}

    /// Whether an entity that is outside of this region's ground may go to the neighbour now. Asked every tick; what a game holds, because it
    /// fights or belongs to a group, stays with its region up to 30 m outside.
    fn may_cross(&self, _world: &World, _who: EntityId) -> bool {
        true
    }

    /// What goes along when an entity crosses a border: a mount, a pet, what it carries. At most 8; the same message takes all of them.
    fn attached(&self, _world: &World, _who: EntityId) -> Vec<EntityId> {
        Vec::new()
    }

    /// What an entity goes along with: it does not cross by itself as long as that one is in this region.
    fn carrier(&self, _world: &World, _who: EntityId) -> Option<EntityId> {
        None
    }

    /// An entity is about to go to another region with all that belongs to it.
    fn departing(&self, _ctx: &mut Context<'_, Self>, _who: EntityId, _to: GroupId) {}

    /// An entity has come from another region with all that belongs to it.
    fn arrived(&self, _ctx: &mut Context<'_, Self>, _who: EntityId, _from: GroupId) {}

    /// A message of this region found nobody: its addressee is not where it was. `letter.from` is who sent it back.
    fn returned(&self, _ctx: &mut Context<'_, Self>, _letter: Letter<'_>) {}

    /// A message of another group.
    fn letter(&self, _ctx: &mut Context<'_, Self>, _letter: Letter<'_>) {}

    /// An operator's order. `Err` says why it is refused.
    fn order(&self, _ctx: &mut Context<'_, Self>, _order: Order<'_>) -> Result<Bytes, Refusal> {
        Err(Refusal::unknown_action())
    }

    /// Full speed of any character, in metres a second; clients predict with it.
    fn max_speed(&self) -> f32 {
        5.0
    }

    /// Full speed of this character now, at most [`Game::max_speed`]. Called every tick for everyone who walks.
    fn speed(&self, _world: &World, _who: EntityId) -> f32 {
        self.max_speed()
    }

    /// How long a character stays in the world after its client was lost, in milliseconds.
    fn linger_ms(&self) -> u64 {
        LINGER_DEFAULT_MS
    }

    /// Looks at the world as a tick left it, on every replica. It changes nothing: for tests that watch what must always hold.
    fn ticked(&self, _world: &World, _ground: &Self::Ground) {}

    /// Says what is wrong with a world that these rules can not have made. For tests and audits.
    fn check(&self, _world: &World, _ground: &Self::Ground) -> Result<(), String> {
        Ok(())
    }
}
