//! The page is one file that stands alone, says what happened, and takes no text for markup.

use std::time::Duration;

use marchland_types::{CommandSeq, GroupId, RegionId, ReplicaId, Term, Tick, WorldId};
use serde_json::Value;

use super::super::{About, Entry, MachineState, Mark, Recording};
use super::render;
use crate::fact::{ClientId, Fact};

const REGION: GroupId = GroupId::region(WorldId(1), RegionId(1));

fn recording() -> Recording {
    let about = About {
        scenario: "weather".to_owned(),
        purpose: "</script><b>&".to_owned(),
        seed: u64::MAX,
        command: "cargo run".to_owned(),
    };
    let mut recording = Recording::of(about);
    let mut tell = |at_ms: u64, lane: &str, mark: Mark| {
        let (at, text) = (Duration::from_millis(at_ms), format!("{mark:?}"));
        recording.entries.push(Entry { at, lane: lane.to_owned(), mark, text });
    };
    let up = |boot| Mark::Machine { name: "n1".into(), state: MachineState::Up { boot } };
    let leads = |term, replica| Mark::Fact(Fact::Leads { group: REGION, term: Term(term), replica });
    let replica = |node: u64| ReplicaId((node << 32) | 1);
    let frame = |tick, applied| {
        let (client, region) = (ClientId(1), RegionId(1));
        Mark::Fact(Fact::Shown { client, region, tick: Tick(tick), applied: CommandSeq(applied) })
    };
    tell(0, "n1", up(1));
    tell(10, "n1", leads(1, replica(1)));
    tell(20, "p1", frame(1, 0));
    tell(70, "p1", frame(2, 4));
    let anew = Mark::Fact(Fact::Joined { client: ClientId(2), resumed: false, attach: 1 });
    tell(75, "p2", frame(2, 0));
    tell(80, "-", Mark::FaultBegins { number: 1, name: "power-loss".to_owned(), target: "n1".into() });
    tell(80, "-", Mark::Machine { name: "n1".into(), state: MachineState::Down });
    tell(400, "n2", leads(2, replica(2)));
    tell(490, "p2", anew);
    tell(500, "p1", frame(3, 4));
    tell(520, "p2", frame(3, 0));
    tell(600, "-", Mark::FaultEnds { number: 1 });
    tell(600, "n1", up(2));
    let what = "c1 saw <tick> 3".to_owned();
    tell(700, "p1", Mark::Violation { invariant: "frames-forward".to_owned(), what });
    recording
}

/// The text of the page's elements of this kind.
fn inside<'a>(page: &'a str, open: &str, close: &str) -> &'a str {
    let from = page.find(open).map(|at| at + open.len()).expect(open);
    let length = page[from..].find(close).expect(close);
    &page[from..from + length]
}

#[test]
fn the_page_holds_lanes_faults_blackouts_and_the_violation() {
    let page = render(&recording()).unwrap();
    let run: Value = serde_json::from_str(inside(&page, "<script type=\"application/json\" id=\"run\">", "</script>")).unwrap();
    assert_eq!(run["seed"], "18446744073709551615", "in full, not as a number of JavaScript");
    assert_eq!(run["violation"]["invariant"], "frames-forward");
    assert_eq!((&run["violation"]["at"], &run["violation"]["what"]), (&Value::from(700.0), &Value::from("c1 saw <tick> 3")));
    let names = |lanes: &str| -> Vec<String> {
        run[lanes].as_array().unwrap().iter().map(|lane| lane["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (names("groups"), names("machines"), names("clients")),
        (vec!["region(1,1)".to_owned()], vec!["n1".to_owned()], vec!["p1".to_owned(), "p2".to_owned()])
    );
    let times = |spans: &Value| -> Vec<(f64, f64)> {
        spans.as_array().unwrap().iter().map(|s| (s["from"].as_f64().unwrap(), s["to"].as_f64().unwrap())).collect()
    };
    assert_eq!(times(&run["groups"][0]["terms"]), [(10.0, 80.0), (400.0, 700.0)], "nobody leads while the leader is down");
    assert_eq!(times(&run["machines"][0]["states"]), [(0.0, 80.0), (80.0, 600.0), (600.0, 700.0)]);
    assert_eq!(times(&run["faults"]), [(80.0, 600.0)]);
    assert_eq!(times(&run["clients"][0]["blackouts"]), [(70.0, 500.0)]);
    assert_eq!(times(&run["clients"][1]["blackouts"]), [], "whoever left and came anew was not kept waiting");
    assert_eq!(run["clients"][0]["acknowledged"], serde_json::json!([[70.0, 4]]));
    assert_eq!(run["events"].as_array().unwrap().len(), recording().entries.len());
}

#[test]
fn the_page_stands_alone_and_is_well_formed() {
    let page = render(&recording()).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert_eq!((page.matches("<script").count(), page.matches("</script>").count()), (2, 2), "no text ends a script");
    let mut urls = page.match_indices("http").map(|(at, _)| &page[at..(at + 26).min(page.len())]);
    assert!(urls.all(|url| url == "http://www.w3.org/2000/svg"), "it asks the network for nothing");
    assert!(!page.contains("{{"), "every place is filled");
    for outside in [" src=", " href=", "@import", "url(http"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let mut open = Vec::new();
    let markup = inside(&page, "<body>", "<script type");
    for tag in markup.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or_default()) {
        let name = tag.split_whitespace().next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "in {tag}"),
            None if ["input", "meta"].contains(&name) => {}
            None => open.push(name),
        }
    }
    assert_eq!(open, Vec::<&str>::new(), "every element is closed");
}
