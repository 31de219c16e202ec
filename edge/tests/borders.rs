//! Two regions on two nodes, and players who go from one to the other.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use marchland_edge::client::Login;
use support::*;

/// A client, and what must hold of it from frame to frame.
struct Walker {
    client: Client,
    world: World,
    sent: Vec<u64>,
    regions: Vec<u32>,
    aliases: BTreeMap<u64, (u8, [f32; 3])>,
    at: tokio::time::Instant,
    longest: Duration,
}

impl Walker {
    async fn join(world: &World, edge: &marchland_edge::Edge) -> Self {
        let mut client = join(edge.local_addr(), "ada").await.unwrap();
        until(&mut client, "others in view", |client| client.view.newest().visible >= 20).await;
        let at = tokio::time::Instant::now();
        Self {
            client,
            world: world.clone(),
            sent: Vec::new(),
            regions: vec![1],
            aliases: BTreeMap::new(),
            at,
            longest: Duration::ZERO,
        }
    }

    fn character(&self) -> u64 {
        self.client.welcome().character_id
    }

    /// Walks a quarter of a metre and does something, then takes a frame.
    async fn step(&mut self, east: f32) {
        self.sent.push(self.client.input(action(b"x"), 0).unwrap());
        self.client.input(walk(east, 0.0), 50).unwrap();
        self.client.flush().await.unwrap();
        self.frame().await;
    }

    async fn frame(&mut self) {
        self.client.next().await.unwrap();
        self.longest = self.longest.max(self.at.elapsed());
        self.at = tokio::time::Instant::now();
        let view = &self.client.view;
        assert_eq!(view.faults(), []);
        if self.regions.last() != Some(&view.newest().region) {
            self.regions.push(view.newest().region);
        }
        let own = [view.own().x, view.own().y, view.own().z];
        let now: BTreeMap<_, _> = view.others().map(|(alias, other)| (other.entity, (alias, other.position()))).collect();
        for (entity, (alias, at)) in &self.aliases {
            let distance = (at[0] - own[0]).hypot(at[2] - own[2]);
            let found = now.get(entity).map(|(alias, _)| alias);
            assert!(found == Some(alias) || (found.is_none() && distance > 48.0), "{entity} {alias} {found:?} at {distance} m");
        }
        assert!(!now.contains_key(&self.client.welcome().self_entity), "oneself is not among the others");
        self.aliases = now;
    }

    /// Everything that was sent was applied once, in order, here or there.
    async fn check_applied(&mut self) {
        while self.client.unacked() > 0 {
            self.frame().await;
        }
        let (character, mut all) = (self.character(), Vec::new());
        for region in [1, 2] {
            let applied = self.world.region(region).applied_actions.clone();
            assert!(applied.is_sorted(), "in order");
            all.extend(applied.into_iter().filter(|(who, _)| *who == character).map(|(_, seq)| seq));
        }
        all.sort_unstable();
        assert_eq!(all, self.sent);
        until(&mut self.client, "everything is answered", |client| client.view.last_reply_seq() == self.sent.len() as u64).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_crosses_a_border_and_comes_back_and_nothing_is_noticed() {
    let world = World::start_two(30).await;
    let edge = world.edge(world.options()).await;
    let mut walker = Walker::join(&world, &edge).await;
    for (steps, east) in [(40, 1.0), (80, -1.0), (60, 1.0)] {
        for _ in 0..steps {
            walker.step(east).await;
        }
    }
    walker.check_applied().await;
    assert_eq!(walker.regions, [1, 2, 1, 2]);
    assert!(walker.longest < Duration::from_millis(300), "{:?} without a frame", walker.longest);
    assert_eq!(edge.stats().clients, 1);
    // Nobody is left, and nothing is followed any more.
    drop(walker);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!((world.followed(1), world.followed(2)), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_change_while_the_player_is_on_its_way() {
    let world = World::start_two(30).await;
    let edge = world.edge(world.options()).await;
    let mut walker = Walker::join(&world, &edge).await;
    let mut moved = 0;
    for round in 0..140 {
        let on_the_way = world.is_on_the_way(walker.character());
        if on_the_way && moved == 0 {
            world.move_owner_of(2, 2);
            moved = 1;
        } else if on_the_way && moved == 1 && round > 60 {
            // To where it goes and where it comes from, both.
            world.move_owner_of(1, 2);
            world.move_owner_of(2, 1);
            moved = 2;
        }
        walker.step(if round < 40 { 1.0 } else { -1.0 }).await;
    }
    assert_eq!(moved, 2);
    walker.check_applied().await;
    assert_eq!(walker.regions, [1, 2, 1]);
    assert!(walker.longest < Duration::from_millis(900), "{:?} without a frame", walker.longest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_region_goes_on_while_the_next_one_is_silent() {
    let world = World::start_two(30).await;
    let edge = world.edge(world.options()).await;
    let mut walker = Walker::join(&world, &edge).await;
    let mut silent = 0;
    for _ in 0..55 {
        if world.is_on_the_way(walker.character()) && silent == 0 {
            world.region(2).paused = true;
        }
        silent += u32::from(world.region(2).paused);
        if silent == 35 {
            world.region(2).paused = false;
        }
        walker.step(1.0).await;
    }
    assert!(silent >= 35 && !world.region(2).paused);
    walker.check_applied().await;
    assert_eq!(walker.regions, [1, 2]);
    assert!(walker.longest < Duration::from_millis(300), "{:?} without a frame", walker.longest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_comes_back_is_found_wherever_the_character_went() {
    let world = World::start_two(30).await;
    let (first, second) = (world.edge(world.options()).await, world.edge(world.options()).await);
    let mut walker = Walker::join(&world, &first).await;
    // Once while the character is between two regions, and once when it has been there for long.
    for _ in 0..60 {
        if world.is_on_the_way(walker.character()) {
            break;
        }
        walker.step(1.0).await;
    }
    assert!(world.is_on_the_way(walker.character()));
    for edge in [&second, &first] {
        let login = Login::Resume(walker.client.resume_key());
        walker.client = connect(edge.local_addr(), &login).await.unwrap();
        assert_eq!(walker.client.welcome().region, 2);
        walker.client.flush().await.unwrap();
        walker.aliases.clear();
        until(&mut walker.client, "others in view", |client| client.view.newest().visible >= 20).await;
        for _ in 0..15 {
            walker.step(0.5).await;
        }
    }
    walker.check_applied().await;
    assert_eq!(world.lock().sign_ins, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_border_comes_from_far_away_and_passes_the_player() {
    let world = World::start_two(30).await;
    world.move_border(450.0);
    let edge = world.edge(world.options()).await;
    let mut walker = Walker::join(&world, &edge).await;
    for _ in 0..20 {
        walker.step(0.0).await;
    }
    assert_eq!((world.followed(2), &walker.regions[..]), (0, &[1][..]), "the other region is far");
    for border in [10.0, -450.0] {
        world.move_border(border);
        for _ in 0..60 {
            walker.step(0.0).await;
        }
        assert!(world.followed(2) > 0, "it is near now");
        let view = &walker.client.view;
        let seen: Vec<u64> = view.others().map(|(_, other)| other.entity).chain([walker.client.welcome().self_entity]).collect();
        let near = |at: [f32; 2]| (at[0] - view.own().x).hypot(at[1] - view.own().z) < 45.0;
        let there = [1, 2].into_iter().flat_map(|number| world.region(number).places());
        let missing: Vec<_> = there.filter(|(entity, at)| near(*at) && !seen.contains(entity)).collect();
        assert_eq!(missing, [], "whoever is near is seen, whosever they are");
    }
    walker.check_applied().await;
    assert_eq!(walker.regions, [1, 2]);
    assert!(walker.longest < Duration::from_millis(900), "{:?} without a frame", walker.longest);
}
