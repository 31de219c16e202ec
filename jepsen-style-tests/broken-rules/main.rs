//! The demo world with rules that fail on demand, as a whole server: what a studio's mistakes do to a cluster is tested with it.
//!
//! Nothing of it is in the released server. A rule fails where somebody says so: a player with [`SAY_PANIC`], another group with one of
//! the letters. A letter that makes a *tick* fail leaves a thing in the world that tells which one, so that it fails on every replica,
//! whenever that one comes to it. And a node whose configuration has a file [`SLOW_FILE`] beside it takes that long for every tick.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use frontier::{Frontier, FrontierGround, map_parameters};
use marchland_jepsen::broken::{LETTER_LOOPS, LETTER_PANICS, SAY_PANIC, SLOW_FILE, TICK_LOOPS, TICK_PANICS};
use marchland_region_core::{
    Action, ActionName, BadParameters, CharacterId, Context, EntityId, Entrance, Game, Letter, Refusal, Registry, Spawn, Timer,
    World,
};
use marchland_server::served::Served;

/// Kind of the thing that says in which tick the rules fail: its look is the letter's code and the tick.
const DOOM: u32 = 4711;
/// Ticks from the letter to the one that fails: it is another entry, with nothing in it that is to blame.
const DELAY_TICKS: u64 = 3;

struct Broken(Frontier);

/// Where this node is told how many milliseconds a tick takes.
static SLOW: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let config = std::env::args().skip_while(|argument| argument != "--config").nth(1)?;
    Some(PathBuf::from(config).with_file_name(SLOW_FILE))
});

fn main() -> ExitCode {
    marchland_server::command::main(|_world| Ok(Served::new(Broken(Frontier::new()?), map_parameters())))
}

fn never_returns() -> ! {
    let mut turns = 0u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

impl Game for Broken {
    type Ground = FrontierGround;

    fn rules_version(&self) -> u64 {
        self.0.rules_version()
    }

    fn content_hash(&self) -> u64 {
        self.0.content_hash()
    }

    fn components(&self, registry: &mut Registry) {
        self.0.components(registry);
    }

    fn actions(&self) -> &'static [ActionName] {
        self.0.actions()
    }

    fn ground(&self, parameters: &[u8]) -> Result<FrontierGround, BadParameters> {
        self.0.ground(parameters)
    }

    fn genesis(&self, ctx: &mut Context<'_, Self>) {
        let ground = ctx.ground();
        self.0.genesis(&mut ctx.lend_on(ground));
    }

    fn enter(&self, ctx: &mut Context<'_, Self>, character: CharacterId, name: &str) -> Spawn {
        let ground = ctx.ground();
        self.0.enter(&mut ctx.lend_on(ground), character, name)
    }

    fn entered(&self, ctx: &mut Context<'_, Self>, who: EntityId, entrance: Entrance) {
        let ground = ctx.ground();
        self.0.entered(&mut ctx.lend_on(ground), who, entrance);
    }

    fn command(&self, ctx: &mut Context<'_, Self>, who: EntityId, action: Action<'_>) -> Result<Bytes, Refusal> {
        let ground = ctx.ground();
        let result = self.0.command(&mut ctx.lend_on(ground), who, action);
        // After it has done everything: none of that may be left.
        let said = action.body.windows(SAY_PANIC.len()).any(|part| part == SAY_PANIC.as_bytes());
        assert!(!(action.code == frontier::action::SAY && said), "planted in a command");
        result
    }

    fn timer(&self, ctx: &mut Context<'_, Self>, timer: Timer) {
        let ground = ctx.ground();
        self.0.timer(&mut ctx.lend_on(ground), timer);
    }

    fn letter(&self, ctx: &mut Context<'_, Self>, letter: Letter<'_>) {
        match letter.code {
            LETTER_PANICS => panic!("planted in a message"),
            LETTER_LOOPS => never_returns(),
            TICK_PANICS | TICK_LOOPS => {
                let at = (u64::from(letter.code) << 32 | (ctx.tick().0 + DELAY_TICKS)).to_le_bytes();
                ctx.spawn(Spawn::new(DOOM).at([5.0, 0.0, 5.0]).look(at.to_vec()));
            }
            _ => {}
        }
    }

    fn tick(&self, ctx: &mut Context<'_, Self>) {
        // No part of the state: replicas differ in how fast they are.
        let asked = SLOW.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        std::thread::sleep(Duration::from_millis(asked.and_then(|text| text.trim().parse().ok()).unwrap_or(0)));
        let now = ctx.tick().0;
        let due = |code: u32| (u64::from(code) << 32 | now).to_le_bytes();
        let dooms = ctx.entities().filter(|view| view.identity.kind == DOOM);
        let looks: Vec<&[u8]> = dooms.map(|view| &view.identity.look[..]).collect();
        assert!(!looks.contains(&&due(TICK_PANICS)[..]), "planted in a tick");
        if looks.contains(&&due(TICK_LOOPS)[..]) {
            never_returns();
        }
    }

    fn max_speed(&self) -> f32 {
        self.0.max_speed()
    }

    fn check(&self, world: &World, ground: &FrontierGround) -> Result<(), String> {
        self.0.check(world, ground)
    }
}
