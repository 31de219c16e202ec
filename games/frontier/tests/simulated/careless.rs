//! The demo world with a mistake in its rules: what the invariants are there to find.

use bytes::Bytes;
use frontier::map::ContentError;
use frontier::{Drop, Frontier, FrontierGround, action};
use marchland_region_core::{
    Action, BadParameters, CharacterId, Context, EntityId, Entrance, Game, Ground, ItemId, Refusal, Registry, Spawn, Timer,
};
use prost::Message;

/// What somebody got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Walkers go where they want to.
    WallsAreAir,
    /// What is laid down ceases to be.
    DroppedIsGone,
}

/// The demo world, all but one rule of it.
pub(crate) struct Careless {
    game: Frontier,
    mistake: Mistake,
}

impl Careless {
    pub(crate) fn new(mistake: Mistake) -> Result<Self, ContentError> {
        Ok(Self { game: Frontier::new()?, mistake })
    }
}

/// The ground, with walls that perhaps hold nobody.
pub(crate) struct CarelessGround {
    ground: FrontierGround,
    mistake: Mistake,
}

impl Ground for CarelessGround {
    fn walk(&self, from: [f32; 2], by: [f32; 2]) -> [f32; 2] {
        match self.mistake {
            Mistake::WallsAreAir => {
                let [low, high] = self.bounds();
                [0, 1].map(|axis| (from[axis] + by[axis]).clamp(low[axis] + 0.5, high[axis] - 0.5))
            }
            Mistake::DroppedIsGone => self.ground.walk(from, by),
        }
    }

    fn is_free(&self, at: [f32; 2]) -> bool {
        self.ground.is_free(at)
    }

    fn sight(&self, from: [f32; 2], to: [f32; 2]) -> f32 {
        self.ground.sight(from, to)
    }

    fn bounds(&self) -> [[f32; 2]; 2] {
        self.ground.bounds()
    }
}

impl Game for Careless {
    type Ground = CarelessGround;

    fn command(&self, ctx: &mut Context<'_, Self>, who: EntityId, action: Action<'_>) -> Result<Bytes, Refusal> {
        if self.mistake == Mistake::DroppedIsGone && action.code == action::DROP {
            let item = Drop::decode(action.body).map_err(|_| Refusal::malformed())?.item;
            ctx.unmake(who, ItemId(item)).map_err(|_| Refusal::because("you do not have it"))?;
            return Ok(Bytes::new());
        }
        let ground = &ctx.ground().ground;
        self.game.command(&mut ctx.lend_on(ground), who, action)
    }

    fn ground(&self, parameters: &[u8]) -> Result<CarelessGround, BadParameters> {
        Ok(CarelessGround { ground: self.game.ground(parameters)?, mistake: self.mistake })
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

    fn genesis(&self, ctx: &mut Context<'_, Self>) {
        let ground = &ctx.ground().ground;
        self.game.genesis(&mut ctx.lend_on(ground));
    }

    fn enter(&self, ctx: &mut Context<'_, Self>, character: CharacterId, name: &str) -> Spawn {
        let ground = &ctx.ground().ground;
        self.game.enter(&mut ctx.lend_on(ground), character, name)
    }

    fn entered(&self, ctx: &mut Context<'_, Self>, who: EntityId, entrance: Entrance) {
        let ground = &ctx.ground().ground;
        self.game.entered(&mut ctx.lend_on(ground), who, entrance);
    }

    fn timer(&self, ctx: &mut Context<'_, Self>, timer: Timer) {
        let ground = &ctx.ground().ground;
        self.game.timer(&mut ctx.lend_on(ground), timer);
    }

    fn max_speed(&self) -> f32 {
        self.game.max_speed()
    }
}
