//! The order of imports is that of docs/DESIGN.md, section 8, and what the code names as its
//! documentation is in this tree.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by path, such as `proto::gossip::list`, and what each imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory whose names end so.
fn files(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
}

/// The module that a file of `src` is.
fn module_of(file: &Path) -> String {
    let path = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    let parts = match parts.as_slice() {
        [parts @ .., "mod"] => parts,
        parts => parts,
    };
    parts.join("::")
}

/// The code of a file, without comments, without its tests, and without who may see what, which imports
/// nothing.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let uncommented = text.lines().map(|line| line.split("//").next().unwrap());
    uncommented.collect::<Vec<_>>().join("\n").replace("pub(in super::super) ", "pub ")
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((start, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap().trim();
        if !name.is_empty() {
            found.push(name.to_owned());
        }
        return;
    };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut from) = (0, 0);
    for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let branch = inner[from..at].trim();
                if !branch.is_empty() {
                    expand(&format!("{start}{branch}"), found);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// All paths into this crate that are written out where they are used.
fn inline_paths(code: &str) -> Vec<String> {
    let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = code.split(|letter| !is_path(letter));
    let starts = ["crate::", "super::", "rumormill::"];
    let named = words.filter(|word| starts.iter().any(|start| word.starts_with(start)));
    named.map(|word| word.trim_end_matches(':').to_owned()).collect()
}

/// What a module imports of this crate, by the module in which it is.
fn imports_of(module: &str, text: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let code = code(text);
    let mut paths = inline_paths(&code);
    for used in code.split("use ").skip(1) {
        expand(used.split(';').next().unwrap(), &mut paths);
    }
    let here: Vec<&str> = module.split("::").collect();
    let mut imports = BTreeSet::new();
    for path in paths {
        let mut parts: Vec<&str> = path.split("::").collect();
        let mut base: Vec<&str> = match parts[0] {
            "crate" | "rumormill" => Vec::new(),
            "super" | "self" => here.clone(),
            _ => continue,
        };
        while let Some(first) = parts.first().copied() {
            match first {
                "crate" | "rumormill" | "self" => {}
                "super" => {
                    base.pop();
                }
                _ => break,
            }
            parts.remove(0);
        }
        base.extend(parts);
        while !base.is_empty() && !modules.contains(&base.join("::")) {
            base.pop();
        }
        let found = base.join("::");
        if !found.is_empty() && found != module {
            imports.insert(found);
        }
    }
    imports
}

fn imports() -> Imports {
    let mut found = Vec::new();
    files(&root().join("src"), ".rs", &mut found);
    let is_test = |file: &PathBuf| file.iter().any(|part| part == "tests" || part == "tests.rs");
    found.retain(|file| !is_test(file));
    let modules: BTreeSet<String> = found.iter().map(|file| module_of(file)).collect();
    let of = |file: PathBuf| {
        let module = module_of(&file);
        let imports = imports_of(&module, &fs::read_to_string(file).unwrap(), &modules);
        (module, imports)
    };
    found.into_iter().map(of).collect()
}

/// The first part of a module's path.
fn top(module: &str) -> &str {
    module.split("::").next().unwrap()
}

/// The rows of the table of DESIGN.md that says who imports whom.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let design = fs::read_to_string(root().join("docs/DESIGN.md")).unwrap();
    let (_, table) = design.split_once("| module | imports |").expect("the table is there");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut allowed = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        for module in names(cells[1]) {
            allowed.insert(module, names(cells[2]));
        }
    }
    allowed
}

#[test]
fn modules_import_what_the_design_says_and_nothing_else() {
    let allowed = table();
    let mut real: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, imports) in imports() {
        let from = top(&module);
        if from == "lib" {
            continue;
        }
        let of = real.entry(from.to_owned()).or_default();
        of.extend(imports.iter().map(|other| top(other).to_owned()).filter(|other| other != from));
    }
    assert!(real.len() > 8, "the modules were found: {real:?}");
    for (module, imports) in &real {
        let row =
            allowed.get(module).unwrap_or_else(|| panic!("DESIGN.md has no row for {module}"));
        assert_eq!(imports, row, "{module}");
    }
}

/// Follows imports from a module; all that can be reached.
fn reachable<'a>(imports: &'a Imports, from: &'a str) -> BTreeSet<&'a str> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for other in imports.get(module).into_iter().flatten() {
            if reached.insert(other.as_str()) {
                next.push(other);
            }
        }
    }
    reached
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let imports = imports();
    for module in imports.keys() {
        let itself = reachable(&imports, module).contains(module.as_str());
        assert!(!itself, "{module} imports itself over {:?}", imports[module]);
    }
    // What one says to the other both know: the messages stand beside the machine that handles them.
    let is_machine_of =
        |module: &str, machine: &str| module.starts_with(machine) && !module.ends_with("::message");
    let of_machines = |from: &str, to: &str| {
        let over = |module: &String| is_machine_of(module, from);
        imports
            .keys()
            .filter(|m| over(m))
            .any(|m| reachable(&imports, m).iter().any(|o| is_machine_of(o, to)))
    };
    assert!(!of_machines("proto::peer", "proto::seed"), "a peer knows no seed's machine");
    assert!(!of_machines("proto::seed", "proto::peer"), "and a seed no peer's");
    assert!(!of_machines("proto::gossip", "proto::peer"), "what spreads knows no peer");
    assert!(!of_machines("proto::kv", "proto::peer"), "and what is replicated none");
}

/// Of each machine: the files that hand what one part says to the next, each of which calls only those
/// before it, and what any part may know.
const MACHINES: [(&str, &[&str], &[&str]); 2] = [
    (
        "proto::seed",
        &["voting", "council", "desk", "disk"],
        &["ballot", "message", "proofs", "tree"],
    ),
    (
        "proto::peer",
        &[
            "common",
            "probe",
            "requests",
            "catch_up",
            "overlay",
            "liveness",
            "members",
            "notices",
            "open",
            "answers",
            "sync",
            "ask",
            "seeds",
            "connections",
        ],
        &["message"],
    ),
];

#[test]
fn no_part_of_a_machine_knows_another_part() {
    let mut parts = 0;
    for (module, imports) in imports() {
        for (machine, routing, shared) in MACHINES {
            // A part may have files of its own below it.
            let name = |module: &str| {
                let rest = module.strip_prefix(machine)?.trim_start_matches("::");
                rest.split("::").next().map(str::to_owned)
            };
            let Some(part) = name(&module).filter(|part| !part.is_empty()) else { continue };
            if routing.contains(&part.as_str()) || shared.contains(&part.as_str()) {
                continue;
            }
            parts += 1;
            for other in imports.iter().filter_map(|other| name(other)).filter(|o| *o != part) {
                assert!(shared.contains(&other.as_str()), "{module} knows {machine}::{other}");
            }
        }
    }
    assert!(parts > 20, "parts were found: {parts}");
}

/// The functions in the `impl` blocks of a machine: their names, and those of the functions of the
/// machine that they call.
fn methods(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let name = |rest: &str| {
        rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    let (mut defined, mut called) = (BTreeSet::new(), BTreeSet::new());
    let mut within = false;
    for line in text.lines() {
        match line {
            _ if line.starts_with("impl ") => within = line.contains("Machine {"),
            "}" => within = false,
            _ => {}
        }
        // In an `impl` block at the margin, so that functions within functions are left out.
        let signature = line.strip_prefix("    ").filter(|_| within).unwrap_or_default();
        let signature = signature.trim_start_matches("pub(super) ").trim_start_matches("pub ");
        if let Some(rest) = signature.strip_prefix("fn ") {
            defined.insert(name(rest));
        }
    }
    // A long chain of calls begins a new line after its first word.
    for rest in text.split("self").skip(1) {
        let method = rest.trim_start().strip_prefix('.').map(name).unwrap_or_default();
        if rest.trim_start().starts_with(&format!(".{method}(")) {
            called.insert(method);
        }
    }
    (defined, called)
}

#[test]
fn the_files_that_route_within_a_machine_call_each_other_one_way() {
    for (machine, routing, _) in MACHINES {
        let dir = root().join("src").join(machine.replace("::", "/"));
        let text = |name: &str| fs::read_to_string(dir.join(format!("{name}.rs"))).unwrap();
        let files: Vec<_> =
            routing.iter().chain(&["mod"]).map(|name| (*name, methods(&text(name)))).collect();
        let mut calls = 0;
        for (place, (caller, (_, called))) in files.iter().enumerate() {
            for (later, (callee, (defined, _))) in files.iter().enumerate() {
                let over: Vec<_> = called.intersection(defined).collect();
                calls += usize::from(later < place) * over.len();
                let one_way = later <= place || over.is_empty();
                assert!(
                    one_way,
                    "{machine}: {caller} calls {over:?} of {callee}, which is above it"
                );
            }
        }
        assert!(calls > 30, "{machine}: calls were found: {calls}");
        for file in fs::read_dir(&dir).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let Some(name) = name.strip_suffix(".rs").filter(|name| *name != "tests") else {
                continue;
            };
            let routes = !methods(&text(name)).0.is_empty();
            let is_part = !routing.contains(&name) && name != "mod";
            assert!(
                !(routes && is_part),
                "{machine}: {name} routes, and is not among the files that do"
            );
        }
    }
}

#[test]
fn what_the_code_names_as_its_documentation_is_in_the_tree() {
    let mut found = Vec::new();
    for dir in ["src", "tests", "benches", "examples", "docs"] {
        files(&root().join(dir), if dir == "docs" { ".md" } else { ".rs" }, &mut found);
    }
    found.retain(|file| !file.ends_with("tests/architecture.rs"));
    let mut named = 0;
    for file in
        found.into_iter().chain(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)))
    {
        let text = fs::read_to_string(&file).unwrap();
        // A reference may go on in the next line.
        let text = text.replace("\n///", "").replace("\n//!", "").replace("\n    //", "");
        for (at, _) in text.match_indices(".md") {
            let start =
                text[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |p| p + 1);
            let name = format!("{}.md", &text[start..at]);
            let doc = [root().join(&name), root().join("docs").join(&name)];
            let doc = doc.iter().find(|doc| doc.is_file());
            let Some(doc) = doc else { panic!("{} names {name}", file.display()) };
            named += 1;
            let Some(rest) = text[at + 3..].strip_prefix(", section ") else { continue };
            let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let heading = format!("\n## {number}. ");
            let has = fs::read_to_string(doc).unwrap().contains(&heading);
            assert!(has, "{} names section {number} of {name}", file.display());
        }
    }
    assert!(named > 40, "references were found: {named}");
}

/// What stands between backticks in a text that is no program.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.lines().filter(|line| !line.starts_with("    "));
    prose.flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn what_the_documentation_names_is_in_the_code() {
    let mut found = Vec::new();
    for dir in ["src", "tests", "benches", "examples"] {
        files(&root().join(dir), ".rs", &mut found);
    }
    let read = |file: &PathBuf| fs::read_to_string(file).unwrap();
    let code: Vec<(String, String)> =
        found.iter().map(|file| (file.display().to_string(), read(file))).collect();
    let mut docs = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    files(&root().join("docs"), ".md", &mut docs);
    let mut named = [0; 3];
    for doc in docs {
        let (text, doc) = (fs::read_to_string(&doc).unwrap(), doc.display().to_string());
        for name in quoted(&text) {
            let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let is_path = |c: char| lower(c) || c == '/';
            if name.strip_suffix(".rs").is_some_and(|path| path.chars().all(is_path)) {
                let ending = format!("/{name}");
                assert!(code.iter().any(|(file, _)| file.ends_with(&ending)), "{doc}: {name}");
                named[0] += 1;
            } else if let Some((module, constant)) = name.split_once("::")
                && module.chars().all(lower)
                && constant.contains('_')
                && constant.chars().all(upper)
            {
                let of = [format!("/{module}.rs"), format!("/{module}/mod.rs")];
                let is_there = |(file, text): &(String, String)| {
                    of.iter().any(|ending| file.ends_with(ending))
                        && text.contains(&format!("const {constant}: "))
                };
                assert!(code.iter().any(is_there), "{doc}: {name}");
                named[1] += 1;
            } else if name.matches('_').count() > 3 && name.chars().all(lower) {
                let function = format!("fn {name}(");
                assert!(code.iter().any(|(_, text)| text.contains(&function)), "{doc}: {name}");
                named[2] += 1;
            }
        }
    }
    assert!(named.iter().all(|named| *named > 10), "files, constants, tests: {named:?}");
}

/// Limits whose names do not begin with `MAX_`: times, and what waits.
const MORE_LIMITS: [&str; 19] = [
    "BATCH",
    "BATCHES",
    "BODY_PATIENCE",
    "CALL",
    "HEADER_PATIENCE",
    "HELLO_PATIENCE",
    "HIGH_WATER",
    "IDLE",
    "IDLE_PATIENCE",
    "INBOX",
    "IN_ALL",
    "LINES_A_SECOND",
    "LINGER",
    "LOOKS",
    "OWN_AHEAD",
    "RESERVED",
    "SLOW",
    "STRANGERS_A_MINUTE",
    "WAITING",
];

/// The limits of a file: names, values as they are written, and what is said of them.
fn limits_of(text: &str) -> Vec<(String, String, String)> {
    let (mut found, mut said) = (Vec::new(), Vec::new());
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(words) = line.strip_prefix("///") {
            said.push(words.trim().replace("[`", "`").replace("`]", "`"));
            continue;
        }
        let constant = line.trim_start_matches("pub").trim_start_matches("(super)").trim_start();
        if let Some((name, rest)) = constant.strip_prefix("const ").and_then(|c| c.split_once(": "))
            && (name.starts_with("MAX_") || MORE_LIMITS.contains(&name))
        {
            let mut rest = rest.to_owned();
            while !rest.ends_with(';') {
                rest.push(' ');
                rest.push_str(lines.next().unwrap());
            }
            let value = rest.split_once(" = ").unwrap().1.trim_end_matches(';').to_owned();
            found.push((name.to_owned(), value, said.join(" ")));
        }
        if !line.starts_with("#[") {
            said.clear();
        }
    }
    found
}

/// The tables of docs/LIMITS.md as the code has them.
fn tables_of_limits() -> String {
    let mut found = Vec::new();
    files(&root().join("src"), ".rs", &mut found);
    let mut tables =
        String::from("| where | limit | value | what it bounds |\n| --- | --- | --- | --- |\n");
    for file in found.iter().filter(|file| !file.iter().any(|part| part == "tests")) {
        let path = file.strip_prefix(root().join("src")).unwrap().display();
        for (name, value, said) in limits_of(&fs::read_to_string(file).unwrap()) {
            assert!(said.len() > 20, "{path}: {name} has no reason");
            tables += &format!("| `{path}` | `{name}` | {value} | {said} |\n");
        }
    }
    tables += "\n| `limit` | what happened |\n| --- | --- |\n";
    for limit in rumormill::proto::limits::Limit::ALL {
        tables += &format!("| `{}` | {} |\n", limit.label(), limit.words());
    }
    tables
}

/// `RUMORMILL_WRITE_LIMITS=1` writes what the code says instead.
#[test]
fn all_limits_are_in_one_place_with_their_reasons() {
    let (path, tables) = (root().join("docs/LIMITS.md"), tables_of_limits());
    assert!(tables.lines().count() > 100, "limits were found: {tables}");
    let page = fs::read_to_string(&path).unwrap();
    let (intro, shown) = page.split_once("\n<!-- from here on the code says it -->\n\n").unwrap();
    if std::env::var_os("RUMORMILL_WRITE_LIMITS").is_some() {
        let page = format!("{intro}\n<!-- from here on the code says it -->\n\n{tables}");
        fs::write(&path, page).unwrap();
        return;
    }
    for (shown, real) in shown.lines().zip(tables.lines()) {
        assert_eq!(shown, real, "write it with RUMORMILL_WRITE_LIMITS=1");
    }
    assert_eq!(shown.lines().count(), tables.lines().count());
}
