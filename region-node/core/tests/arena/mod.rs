//! A game that does everything a game may do, and some things that it should not.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod random_log;

use std::sync::Arc;

use bytes::Bytes;
use marchland_proto::storage::GameMessage;
use marchland_region_core::{
    Action, ApplyFault, Audience, BadParameters, CharacterId, CodecError, Component, Context, Effects, EntityId, Entrance, Game,
    GroupId, ItemId, Letter, LogIndex, Order, Reader, Refusal, Region, Registry, Spawn, TileGround, Timer, World, Writer,
};

/// A number that changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Mood(pub u32);

impl Component for Mood {
    const TAG: u32 = 1;
    const NAME: &'static str = "mood";
    fn put(&self, out: &mut Writer) {
        out.u32(self.0);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self(input.u32()?))
    }
}

/// Who follows whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Follows(pub EntityId);

impl Component for Follows {
    const TAG: u32 = 9;
    const NAME: &'static str = "follows";
    fn put(&self, out: &mut Writer) {
        out.u64(self.0.0);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self(EntityId(input.u64()?)))
    }
}

pub const MINT: u32 = 1;
pub const DROP_FIRST: u32 = 2;
pub const PICK_UP: u32 = 3;
pub const TIMER: u32 = 4;
pub const PET: u32 = 5;
pub const TELEPORT: u32 = 6;
pub const TELL_ALL: u32 = 7;
pub const POST: u32 = 8;
pub const GIVE: u32 = 9;
pub const WRECK_AND_PANIC: u32 = 10;
pub const WRECK_AND_REFUSE: u32 = 11;
pub const LONG_ANSWER: u32 = 12;
pub const SHOUT: u32 = 13;
pub const UNMAKE: u32 = 14;
/// One more than the last action.
pub const ACTIONS_END: u32 = 16;

pub const ELSEWHERE: GroupId = GroupId(0x0400_0001_0000_0009);

/// 16 × 16 tiles of 2 m with a few walls.
pub struct Arena;

/// Writes to everything that a handler can write to.
fn wreck(ctx: &mut Context<'_, Arena>, who: EntityId) {
    let place = ctx.position(who).unwrap_or_default();
    let pet = ctx.spawn(Spawn::new(3).at(place).named("wreck"));
    if let Some(pet) = pet {
        ctx.set(pet, Mood(1));
        let _ = ctx.mint(pet, 1, Bytes::new());
        ctx.walk(pet, [1.0, 1.0]);
    }
    let others: Vec<EntityId> = ctx.entities().map(|view| view.identity.entity).take(5).collect();
    for other in others {
        ctx.set_look(other, b"wrecked".as_slice());
        ctx.set(other, Mood(77));
        ctx.teleport(other, [1.0, 0.0, 1.0]);
        ctx.despawn(other);
    }
    let _ = ctx.mint(who, 2, Bytes::new());
    if let Some(item) = ctx.items(who).first().map(|item| item.item) {
        let _ = ctx.drop_item(who, item, Spawn::new(4).at(place));
    }
    ctx.remove::<Mood>(who);
    ctx.random(1).next_u64();
    ctx.random(4711).next_u64();
    ctx.after(50, Timer { entity: Some(who), code: 1, argument: 0 });
    if let Some(character) = ctx.character_of(who) {
        let _ = ctx.tell(character, 9, Bytes::new());
    }
    let _ = ctx.post(ELSEWHERE, GameMessage::default());
}

impl Game for Arena {
    type Ground = TileGround;

    fn rules_version(&self) -> u64 {
        3
    }

    fn content_hash(&self) -> u64 {
        0xfeed
    }

    fn components(&self, registry: &mut Registry) {
        registry.add::<Mood>();
        registry.add::<Follows>();
    }

    fn ground(&self, parameters: &[u8]) -> Result<TileGround, BadParameters> {
        if parameters == b"bad" {
            return Err(BadParameters("bad they are".into()));
        }
        let solid = (0..256).map(|tile| tile % 7 == 3 && tile % 5 != 0).collect();
        TileGround::new(16, 2.0, solid).ok_or(BadParameters("no grid".into()))
    }

    fn genesis(&self, ctx: &mut Context<'_, Self>) {
        for x in 0..5 {
            let stone = ctx.spawn(Spawn::new(2).at([x as f32 * 4.0, 0.0, 9.0])).expect("room in a new world");
            ctx.set(stone, Mood(x));
            ctx.after(u64::from(x) * 100, Timer { entity: Some(stone), code: 1, argument: 3 });
        }
    }

    fn enter(&self, ctx: &mut Context<'_, Self>, character: CharacterId, name: &str) -> Spawn {
        assert!(name != "panic", "a name that the rules can not bear");
        let random = ctx.random(2);
        let place = [random.between(0.0, 32.0), 0.0, random.between(0.0, 32.0)];
        Spawn::new(1).at(place).look(character.0.to_le_bytes().to_vec())
    }

    fn entered(&self, ctx: &mut Context<'_, Self>, who: EntityId, entrance: Entrance) {
        if entrance == Entrance::First {
            ctx.set(who, Mood(0));
        }
        if let Some(character) = ctx.character_of(who) {
            let _ = ctx.tell(character, 1, b"welcome".as_slice());
        }
    }

    fn leaving(&self, ctx: &mut Context<'_, Self>, who: EntityId) {
        ctx.change(who, |mood: &mut Mood| mood.0 += 100);
    }

    fn command(&self, ctx: &mut Context<'_, Self>, who: EntityId, action: Action<'_>) -> Result<Bytes, Refusal> {
        let place = ctx.position(who).ok_or(Refusal::because("gone"))?;
        match action.code {
            MINT => {
                let item = ctx.mint(who, action.body.len() as u32, Bytes::new()).map_err(|e| Refusal::because(e.to_string()))?;
                Ok(Bytes::copy_from_slice(&item.0.to_le_bytes()))
            }
            DROP_FIRST => {
                let item = ctx.items(who).first().ok_or(Refusal::because("nothing"))?.item;
                ctx.drop_item(who, item, Spawn::new(4).at(place)).map_err(|e| Refusal::because(e.to_string()))?;
                Ok(Bytes::new())
            }
            PICK_UP => {
                let lying = ctx.nearest(place, 50.0, |entity| ctx.entity(entity).is_some_and(|view| view.identity.kind == 4));
                let lying = lying.ok_or(Refusal::because("nothing lies here"))?;
                ctx.pick_up(who, lying).map_err(|e| Refusal::because(e.to_string()))?;
                Ok(Bytes::new())
            }
            TIMER => {
                let delay_ms = u64::from(ctx.random(3).below(300));
                ctx.after(delay_ms, Timer { entity: Some(who), code: 1, argument: 2 });
                Ok(Bytes::new())
            }
            PET => {
                let pet = ctx.spawn(Spawn::new(3).at(place).named("pet").shown_to(Audience::Named(vec![CharacterId(1)])));
                let pet = pet.ok_or(Refusal::because("full"))?;
                ctx.set(pet, Follows(who));
                ctx.after(2000, Timer { entity: Some(pet), code: 2, argument: 0 });
                Ok(Bytes::new())
            }
            TELEPORT => {
                ctx.teleport(who, [place[2], 0.0, place[0]]);
                let free = marchland_region_core::Ground::is_free(ctx.ground(), [place[2], place[0]]);
                if free { Ok(Bytes::new()) } else { Err(Refusal::because("a wall")) }
            }
            TELL_ALL => {
                let all: Vec<CharacterId> = ctx.entities().filter_map(|view| view.identity.character).collect();
                for character in all {
                    let _ = ctx.tell(character, 5, vec![7; action.body.len() * 4]);
                }
                Ok(Bytes::new())
            }
            POST => {
                let message = GameMessage { code: 1, body: Bytes::copy_from_slice(action.body), ..GameMessage::default() };
                ctx.post(ELSEWHERE, message).map_err(|e| Refusal::because(e.to_string()))?;
                Ok(Bytes::new())
            }
            GIVE => {
                let mut best = None;
                ctx.each_near(place, 20.0, |near| best = Some(near.entity).filter(|e| *e != who).or(best));
                let to = best.ok_or(Refusal::because("nobody"))?;
                let item = ctx.items(who).first().map_or(ItemId(0), |item| item.item);
                ctx.give(who, to, item).map_err(|e| Refusal::because(e.to_string()))?;
                Ok(Bytes::new())
            }
            WRECK_AND_PANIC => {
                wreck(ctx, who);
                panic!("as ordered");
            }
            WRECK_AND_REFUSE => {
                wreck(ctx, who);
                Err(Refusal::because("as ordered"))
            }
            LONG_ANSWER => {
                wreck(ctx, who);
                Ok(vec![1; 100_000].into())
            }
            SHOUT => {
                ctx.shout(who, 3, Bytes::copy_from_slice(action.body));
                Ok(Bytes::new())
            }
            UNMAKE => {
                let item = ctx.items(who).first().ok_or(Refusal::because("nothing"))?.item;
                ctx.unmake(who, item).map_err(|e| Refusal::because(e.to_string()))?;
                Ok(Bytes::new())
            }
            _ => Err(Refusal::unknown_action()),
        }
    }

    fn timer(&self, ctx: &mut Context<'_, Self>, timer: Timer) {
        let Some(entity) = timer.entity else { return };
        match timer.code {
            1 => {
                ctx.change(entity, |mood: &mut Mood| mood.0 = mood.0.wrapping_add(1));
                if timer.argument > 0 {
                    let delay_ms = 30 + u64::from(ctx.random(3).below(400));
                    ctx.after(delay_ms, Timer { argument: timer.argument - 1, ..timer });
                }
            }
            2 => {
                ctx.despawn(entity);
            }
            _ => {}
        }
    }

    fn tick(&self, ctx: &mut Context<'_, Self>) {
        let pets: Vec<(EntityId, EntityId)> = ctx.with::<Follows>().map(|(pet, follows)| (pet, follows.0)).collect();
        let kept = !pets.is_empty();
        for (pet, master) in pets {
            let (Some(at), Some(to)) = (ctx.position(pet), ctx.position(master)) else { continue };
            let jitter = ctx.random(5).between(-0.1, 0.1);
            ctx.walk(pet, [(to[0] - at[0]) * 0.1 + jitter, (to[2] - at[2]) * 0.1]);
        }
        if kept && ctx.tick().0 % 41 == 40 {
            wreck_first(ctx);
            panic!("now and then");
        }
    }

    fn letter(&self, ctx: &mut Context<'_, Self>, letter: Letter<'_>) {
        if letter.code == 13 {
            panic!("a letter that the rules can not bear");
        }
        if let Some(to) = letter.to {
            ctx.change(to, |mood: &mut Mood| mood.0 ^= letter.code);
        }
    }

    fn order(&self, ctx: &mut Context<'_, Self>, order: Order<'_>) -> Result<Bytes, Refusal> {
        ctx.spawn(Spawn::new(order.code).at([5.0, 0.0, 5.0]));
        Ok(Bytes::new())
    }

    fn linger_ms(&self) -> u64 {
        600
    }

    fn max_speed(&self) -> f32 {
        6.0
    }

    fn speed(&self, world: &World, who: EntityId) -> f32 {
        if world.get::<Mood>(who).is_some_and(|mood| mood.0 % 3 == 1) { 3.0 } else { 6.0 }
    }
}

fn wreck_first(ctx: &mut Context<'_, Arena>) {
    let first = ctx.entities().map(|view| view.identity.entity).next();
    if let Some(first) = first {
        wreck(ctx, first);
    }
}

/// Applies an entry, or goes back and skips it where the game's tick panics.
pub fn apply_or_skip(region: &mut Region<Arena>, index: LogIndex, entry: &[u8]) -> Result<Effects<Arena>, ApplyFault> {
    let before = region.view();
    match region.apply(index, entry) {
        Err(ApplyFault::Panicked { .. }) => {
            *region = Region::decode(Arc::new(Arena), &before.encode()).expect("a state that was");
            region.skip(index, entry)
        }
        result => result,
    }
}

/// Keeps the panics that tests provoke out of their output.
pub fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or_default();
            let ours = ["as ordered", "now and then", "a letter that", "a name that"].iter().any(|known| text.starts_with(known));
            if !ours {
                before(info);
            }
        }));
    });
}
