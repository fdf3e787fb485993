fn main() {
    let args: Vec<String> = std::env::args().collect();
    let world = if args[2] == "memory" {
        sim::scenario::WorldKind::Memory
    } else {
        sim::scenario::WorldKind::Turmoil
    };
    let seeds: u64 = args.get(3).map_or(1, |s| s.parse().unwrap());
    for seed in 1..=seeds {
        let scenario = match sim::scenario::load(std::path::Path::new(&args[1]), &[], Some(seed)) {
            Ok(s) => s,
            Err(e) => {
                println!("{e:?}");
                return;
            }
        };
        let tp = std::time::Instant::now();
        if std::env::var("PLACE").is_ok() {
            let p = planner::place::place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
            eprintln!("place {:.3} s", tp.elapsed().as_secs_f64());
            if let Ok(p) = p {
                eprintln!(
                    "{} replicas {:?} {:?}",
                    p.recommended.plan.replicas.len(),
                    p.recommended.plan.replicas.iter().map(|r| r.stages.len()).collect::<Vec<_>>(),
                    p.recommended.prediction
                );
            }
        }
        let t = std::time::Instant::now();
        let r = sim::run::record(&scenario, seed, world, false);
        let wall = t.elapsed().as_secs_f64();
        match r {
            Err(e) => println!("{e}"),
            Ok(r) => {
                let o = &r.outcome;
                let gaps: Vec<f64> =
                    o.requests.iter().flat_map(|r| r.tokens_us.windows(2).map(|g| g[1] - g[0])).collect();
                let tok = gaps.len() as f64 / gaps.iter().sum::<f64>() * 1e6;
                println!(
                    "seed {seed} scale {} {:?} tok/s {tok:.4} ended {:.3} s wall {wall:.3} s = {:.0}x  epoch {} events {} done {} viol {:?}",
                    o.scale,
                    o.breakdown,
                    o.ended_us / 1e6,
                    o.ended_us / 1e6 / wall,
                    o.epoch.0,
                    r.events.len(),
                    o.requests.iter().filter(|r| r.status == sim::outcome::Status::Completed).count(),
                    o.violations
                );
                if seeds == 1 {
                    for i in &o.incidents {
                        println!("{:.3} {} {:?}", i.at_us / 1e6, i.what, i.pause_us);
                    }
                    if args.len() > 4 {
                        for e in &r.events {
                            println!("{:.6} {} {:?}", e.at_ns as f64 / 1e9, e.node.0, e.event);
                        }
                    }
                    for r in &o.requests {
                        println!(
                            "{} {:.3} {:?} {} {:?} {}",
                            r.session.0,
                            r.asked_us / 1e6,
                            r.ended_us.map(|e| e / 1e6),
                            r.entry,
                            r.status,
                            r.resumptions
                        );
                    }
                }
            }
        }
    }
}
