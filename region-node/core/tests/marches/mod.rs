//! A game whose wolves, arrows and riders know no borders.

use bytes::Bytes;
use marchland_region_core::{
    Action, BadParameters, CharacterId, CodecError, Component, Context, EntityId, Entrance, Game, GroupId, Letter, OpenGround,
    Reader, Refusal, Registry, Spawn, Timer, World, Writer,
};

/// Side of a region in the tests, in metres.
pub const SIDE_M: f32 = 100.0;

pub const KIND_PLAYER: u32 = 1;
pub const KIND_WOLF: u32 = 2;
pub const KIND_ARROW: u32 = 3;
pub const KIND_HORSE: u32 = 4;

/// Spawn a wolf 10 m behind.
pub const CALL_WOLF: u32 = 1;
/// Shoot to the east.
pub const SHOOT: u32 = 2;
/// Mount a horse.
pub const MOUNT: u32 = 3;
/// Fight on, and stay with this region meanwhile.
pub const FIGHT: u32 = 4;
/// Stop fighting.
pub const REST: u32 = 5;
/// Make an item.
pub const MAKE: u32 = 6;
/// Rest for a second: sets a deadline and a timer.
pub const WAIT: u32 = 7;
/// Be 60 m farther east at once.
pub const LEAP: u32 = 8;
/// Send a letter to the entity that the body names.
pub const WRITE_TO: u32 = 9;

const LETTER_BITTEN: u32 = 1;
const LETTER_HIT: u32 = 2;
const LETTER_GREETING: u32 = 3;
pub const TIMER_AWAKE: u32 = 1;

macro_rules! component {
    ($(#[$meta:meta])* $name:ident($inner:ty), $tag:literal, $put:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(pub $inner);

        impl Component for $name {
            const TAG: u32 = $tag;
            const NAME: &'static str = stringify!($name);
            fn put(&self, out: &mut Writer) {
                out.$put(self.0);
            }
            fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
                Ok(Self(input.$put()?))
            }
        }
    };
}

component!(
    /// Bites taken.
    Wounds(u32), 1, u32
);
component!(
    /// What a rider sits on.
    Rides(u64), 2, u64
);
component!(
    /// Who sits on a horse.
    Carries(u64), 3, u64
);
component!(
    /// Ticks that an arrow flies on.
    Flies(u32), 4, u32
);
component!(
    /// In a fight.
    Fights(bool), 5, bool
);
component!(
    /// Greetings that came, and letters that came back.
    Mail(u32), 6, u32
);
component!(
    /// Ticks until a wolf bites again.
    Sated(u32), 7, u32
);

/// A moment.
#[derive(Clone, Debug, PartialEq)]
pub struct RestsUntil(pub u64);

impl Component for RestsUntil {
    const TAG: u32 = 8;
    const NAME: &'static str = "rests until";
    fn put(&self, out: &mut Writer) {
        out.u64(self.0);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self(input.u64()?))
    }
    fn shift_ms(&mut self, later_ms: i64) {
        self.0 = self.0.saturating_add_signed(later_ms);
    }
}

pub struct Marches;

impl Marches {
    fn hurt(ctx: &mut Context<'_, Self>, who: EntityId) {
        ctx.change(who, |wounds: &mut Wounds| wounds.0 += 1);
    }

    fn wolves(ctx: &mut Context<'_, Self>) {
        let wolves: Vec<(EntityId, u32)> = ctx.with::<Sated>().map(|(wolf, sated)| (wolf, sated.0)).collect();
        for (wolf, sated) in wolves {
            let Some(at) = ctx.position(wolf) else { continue };
            let prey = ctx.nearest(at, 30.0, |seen| ctx.entity(seen).is_some_and(|view| view.identity.kind == KIND_PLAYER));
            let Some((prey, to)) = prey.and_then(|prey| Some((prey, ctx.position(prey)?))) else { continue };
            let (dx, dz) = (to[0] - at[0], to[2] - at[2]);
            let far = (dx * dx + dz * dz).sqrt();
            if far > 1.0 {
                let step = (0.4 / far).min(1.0);
                ctx.walk(wolf, [dx * step, dz * step]);
            }
            if far < 2.0 && sated == 0 {
                ctx.set(wolf, Sated(20));
                match ctx.ghost_of(prey) {
                    Some(_) => ctx.send(prey, LETTER_BITTEN, Bytes::new()).expect("room in the channel"),
                    None => Self::hurt(ctx, prey),
                }
            } else if sated > 0 {
                ctx.set(wolf, Sated(sated - 1));
            }
        }
    }

    fn arrows(ctx: &mut Context<'_, Self>) {
        let arrows: Vec<(EntityId, u32)> = ctx.with::<Flies>().map(|(arrow, left)| (arrow, left.0)).collect();
        for (arrow, left) in arrows {
            let Some(at) = ctx.position(arrow) else { continue };
            let ground = *ctx.ground();
            let struck = ctx
                .along_ray(&ground, at, [1.0, 0.0], 1.5, 0.5)
                .into_iter()
                .find(|hit| ctx.entity(hit.entity).is_some_and(|view| view.identity.kind == KIND_WOLF));
            if let Some(hit) = struck {
                match ctx.ghost_of(hit.entity) {
                    Some(_) => ctx.send(hit.entity, LETTER_HIT, Bytes::new()).expect("room in the channel"),
                    None => Self::hurt(ctx, hit.entity),
                }
            }
            if struck.is_some() || left == 0 {
                ctx.despawn(arrow);
            } else {
                ctx.walk(arrow, [1.5, 0.0]);
                ctx.set(arrow, Flies(left - 1));
            }
        }
    }
}

impl Game for Marches {
    type Ground = OpenGround;

    fn rules_version(&self) -> u64 {
        1
    }

    fn content_hash(&self) -> u64 {
        5
    }

    fn components(&self, registry: &mut Registry) {
        registry.add::<Wounds>();
        registry.add::<Rides>();
        registry.add::<Carries>();
        registry.add::<Flies>();
        registry.add::<Fights>();
        registry.add::<Mail>();
        registry.add::<Sated>();
        registry.add::<RestsUntil>();
    }

    fn ground(&self, _: &[u8]) -> Result<OpenGround, BadParameters> {
        Ok(OpenGround::new(4.0 * SIDE_M))
    }

    fn enter(&self, ctx: &mut Context<'_, Self>, _: CharacterId, name: &str) -> Spawn {
        // The name says where, from the region's own corner: "x z".
        let mut place = name.split(' ').skip(1).map(|part| part.parse::<f32>().expect("a place in the name"));
        let corner = ctx.own_ground().expect("regions on a map")[0];
        let mut next = || place.next().expect("two numbers");
        Spawn::new(KIND_PLAYER).at([corner[0] + next(), 0.0, corner[1] + next()])
    }

    fn entered(&self, ctx: &mut Context<'_, Self>, who: EntityId, entrance: Entrance) {
        if entrance == Entrance::First {
            ctx.set(who, Wounds(0));
            ctx.set(who, Mail(0));
        }
    }

    fn command(&self, ctx: &mut Context<'_, Self>, who: EntityId, action: Action<'_>) -> Result<Bytes, Refusal> {
        let at = ctx.position(who).ok_or(Refusal::because("gone"))?;
        match action.code {
            CALL_WOLF => {
                let wolf = ctx.spawn(Spawn::new(KIND_WOLF).at([at[0] - 10.0, 0.0, at[2]])).ok_or(Refusal::because("full"))?;
                ctx.set(wolf, Sated(0));
                ctx.set(wolf, Wounds(0));
            }
            SHOOT => {
                let arrow = ctx.spawn(Spawn::new(KIND_ARROW).at([at[0] + 1.0, 0.0, at[2]])).ok_or(Refusal::because("full"))?;
                ctx.set(arrow, Flies(60));
            }
            MOUNT => {
                let horse = ctx.spawn(Spawn::new(KIND_HORSE).at(at)).ok_or(Refusal::because("full"))?;
                ctx.set(horse, Carries(who.0));
                ctx.set(who, Rides(horse.0));
                ctx.mint(horse, 7, Bytes::from_static(b"saddle")).map_err(|e| Refusal::because(e.to_string()))?;
            }
            FIGHT => {
                ctx.set(who, Fights(true));
            }
            REST => {
                ctx.set(who, Fights(false));
            }
            MAKE => {
                ctx.mint(who, 1, Bytes::new()).map_err(|e| Refusal::because(e.to_string()))?;
            }
            WAIT => {
                ctx.set(who, RestsUntil(ctx.now_ms() + 1_000));
                ctx.after(1_000, Timer { entity: Some(who), code: TIMER_AWAKE, argument: 0 });
            }
            LEAP => {
                ctx.teleport(who, [at[0] + 60.0, 0.0, at[2]]);
            }
            WRITE_TO => {
                let to = EntityId(u64::from_le_bytes(action.body.try_into().map_err(|_| Refusal::malformed())?));
                ctx.send(to, LETTER_GREETING, Bytes::new()).map_err(|e| Refusal::because(e.to_string()))?;
            }
            _ => return Err(Refusal::unknown_action()),
        }
        Ok(Bytes::new())
    }

    fn timer(&self, ctx: &mut Context<'_, Self>, timer: Timer) {
        if let Some(who) = timer.entity {
            ctx.remove::<RestsUntil>(who);
        }
    }

    fn tick(&self, ctx: &mut Context<'_, Self>) {
        Self::wolves(ctx);
        Self::arrows(ctx);
        let riders: Vec<(EntityId, EntityId)> = ctx.with::<Rides>().map(|(rider, rides)| (rider, EntityId(rides.0))).collect();
        for (rider, horse) in riders {
            if let (Some(to), Some(at)) = (ctx.position(rider), ctx.position(horse)) {
                ctx.walk(horse, [to[0] - at[0], to[2] - at[2]]);
            }
        }
    }

    fn letter(&self, ctx: &mut Context<'_, Self>, letter: Letter<'_>) {
        let Some(to) = letter.to else { return };
        match letter.code {
            LETTER_BITTEN | LETTER_HIT => Self::hurt(ctx, to),
            _ => drop(ctx.change(to, |mail: &mut Mail| mail.0 += 1)),
        }
    }

    fn returned(&self, ctx: &mut Context<'_, Self>, _: Letter<'_>) {
        let writers: Vec<EntityId> = ctx.with::<Mail>().map(|(who, _)| who).collect();
        for writer in writers {
            ctx.change(writer, |mail: &mut Mail| mail.0 += 100);
        }
    }

    fn may_cross(&self, world: &World, who: EntityId) -> bool {
        world.get::<Fights>(who).is_none_or(|fights| !fights.0)
    }

    fn attached(&self, world: &World, who: EntityId) -> Vec<EntityId> {
        world.get::<Rides>(who).map(|rides| EntityId(rides.0)).into_iter().collect()
    }

    fn carrier(&self, world: &World, who: EntityId) -> Option<EntityId> {
        world.get::<Carries>(who).map(|carries| EntityId(carries.0))
    }

    fn arrived(&self, ctx: &mut Context<'_, Self>, who: EntityId, _: GroupId) {
        // A game may take note of it; this one only looks whether everything has come.
        assert!(ctx.slot_of(who).is_some());
    }

    fn max_speed(&self) -> f32 {
        5.0
    }
}
