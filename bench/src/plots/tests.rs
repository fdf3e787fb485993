#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn args(out: &Path, scenarios: PathBuf) -> PlotsArgs {
    PlotsArgs { scenarios, sweeps: project().join("bench/sweeps"), out: out.to_owned(), seeds: 2 }
}

#[test]
fn every_sweep_can_be_read_at_each_of_its_values() {
    for spec in &SWEEPS {
        let path = project().join("bench/sweeps").join(spec.name).with_extension("toml");
        for value in spec.values {
            let loaded = load(&path, &[(spec.key, value)], Some(1)).unwrap();
            assert!(loaded.scenario.question.ends_with('?'), "{}", spec.name);
        }
    }
}

#[test]
fn a_sweep_writes_its_table_its_figures_and_its_manifest() {
    let out = tempfile::tempdir().unwrap();
    let few = SweepSpec { values: &["1", "2"], ..SWEEPS.into_iter().find(|s| s.name == "users").unwrap() };
    let mut said = Vec::new();
    one_sweep(&few, &args(out.path(), project()), &mut |line| said.push(line.to_owned())).unwrap();
    assert_eq!(said, ["sweep users: workload.users = 1", "sweep users: workload.users = 2"]);
    let table = std::fs::read_to_string(out.path().join("users/sweep.csv")).unwrap();
    assert_eq!(table.lines().filter(|l| l.starts_with("workload.users,2,ring,2,")).count(), 1, "{table}");
    for file in ["sweep-throughput.svg", "sweep-throughput.png", "sweep-decode.svg", "manifest.json"] {
        assert!(out.path().join("users").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_scenario_that_cannot_be_run_does_not_keep_the_others_from_being_drawn() {
    let (out, scenarios) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let common = scenarios.path().join("common");
    std::fs::create_dir(&common).unwrap();
    std::fs::copy(project().join("scenarios/common/home-wifi.toml"), common.join("home-wifi.toml")).unwrap();
    std::fs::copy(project().join("scenarios/wifi2.toml"), scenarios.path().join("wifi2.toml")).unwrap();
    std::fs::write(scenarios.path().join("broken.toml"), "model = 7").unwrap();
    let failed = all_scenarios(&args(out.path(), scenarios.path().to_owned()), &mut |_| {}).unwrap();
    assert!(matches!(failed, Some(PlotsError::Scenario(_))), "{failed:?}");
    for file in
        ["scenarios.svg", "scenarios.png", "wifi2/timeline.svg", "wifi2/requests.csv", "wifi2/manifest.json"]
    {
        assert!(out.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn a_missing_directory_is_named() {
    let out = tempfile::tempdir().unwrap();
    let error = run(&args(out.path(), PathBuf::from("no/such/place")), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no/such/place"), "{error}");
}
