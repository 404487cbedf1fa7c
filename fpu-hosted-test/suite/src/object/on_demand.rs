//! The switch with tiles on demand, path by path, beside the same switch with a plain plan: what it costs more, and where
//! it writes IA32_XFD.

use super::{
    disasm::{last_part, Functions, Insn},
    rules::{forbidden, path_name, problem, Line},
    walk::{paths, text, Kind, Path},
};

/// What a path may have more than the plain one of its kind: where nothing is saved or loaded; else, where IA32_XFD stays
/// and where it is written. One of each is the load of the area's address: areas of two sizes are not part of the context.
const MORE: [(&str, usize, [usize; 2]); 2] =
    [("switch_prepare", 1, [4, 0]), ("switch_return", 2, [8, 21])];

/// Judges the functions with that start by those with the other one, which are the plain ones.
pub fn judge(functions: &Functions, own: &str, plain: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, idle, moves) in MORE {
        let (own, plain) = (format!("{own}{name}"), format!("{plain}{name}"));
        match (walk(functions, &own), walk(functions, &plain)) {
            (Ok(all), Ok(plain)) => lines.extend(compare(&own, &all, &plain, idle, moves)),
            (Err(why), _) | (_, Err(why)) => lines.push(problem(&own, why)),
        }
    }
    lines
}

/// The paths that return, of plans that skip nothing: no plan with tiles on demand does.
fn walk<'f>(functions: &'f Functions, name: &str) -> Result<Vec<Path<'f>>, String> {
    let body = functions.get(name).ok_or("is not in the object code")?;
    let all = paths(body, &|name| name.contains("refused"))?;
    let counts = |path: &Path<'_>| path.kind() != Kind::Refused && !path.looks();
    Ok(all.into_iter().filter(counts).collect())
}

fn writes(path: &Path<'_>) -> usize {
    path.insns.iter().filter(|insn| insn.last_word() == "wrmsr").count()
}

fn compare(
    name: &str,
    all: &[Path<'_>],
    plain: &[Path<'_>],
    idle: usize,
    moves: [usize; 2],
) -> Vec<Line> {
    let mut lines = Vec::new();
    let returns = name.contains("return");
    let sort = |path: &Path<'_>| (path.kind(), path.looks());
    let mut kinds: Vec<(Kind, bool)> = all.iter().map(sort).collect();
    kinds.sort();
    kinds.dedup();
    for (kind, looks) in kinds {
        // A plan that skips what is initial looks at an image first, and counts it as loaded.
        let idles = matches!(kind, Kind::NothingDue | Kind::Bookkeeping) && !looks;
        let loads = returns && !idles;
        let same = |p: &&Path<'_>| sort(p) == (kind, looks);
        let most = plain.iter().filter(same).map(|p| p.counted().len()).max();
        for (count, moves) in moves.into_iter().enumerate() {
            let more = if idles { idle } else { moves };
            let group: Vec<_> = all.iter().filter(|p| same(p) && writes(p) == count).collect();
            let path = format!(
                "{}{}{}",
                if looks { "looks, " } else { "" },
                path_name(name, kind),
                if count == 0 { "" } else { " +xfd" }
            );
            let Some(longest) = group.iter().max_by_key(|p| p.counted().len()) else {
                // IA32_XFD may differ before each restore, and before nothing else.
                if count == 0 || loads {
                    lines.push(problem(name, format!("no path `{path}`")));
                }
                continue;
            };
            let (instructions, limit) = (longest.counted().len(), most.map(|most| most + more));
            let mut wrong: Vec<String> =
                group.iter().flat_map(|p| &p.insns).filter_map(|insn| named(insn)).collect();
            wrong.dedup();
            if count > 0 && !loads {
                wrong.push("IA32_XFD is written, and nothing is restored".into());
            }
            match limit {
                None => wrong.push("no such path with a plain plan".into()),
                Some(limit) if instructions > limit => {
                    wrong.push(format!("{instructions} instructions, {limit} are allowed"));
                }
                Some(_) => {}
            }
            let listing = longest.insns.iter().map(|insn| text(insn)).collect();
            let (function, budget) = (name.to_owned(), limit);
            lines.push(Line { function, path, instructions, budget, wrong, listing });
        }
    }
    if all.iter().any(|path| writes(path) > 1) {
        lines.push(problem(last_part(name), "IA32_XFD is written twice".into()));
    }
    lines
}

fn named(insn: &Insn) -> Option<String> {
    Some(format!("{}: `{}`", forbidden(insn, &|_| false)?, text(insn)))
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::object::disasm::parse;

    const START: &str = "\
0000000000001000 <NAME_switch_prepare>:
    1000:\tmov    rcx,QWORD PTR [rdi]
    1001:\tcmp    rcx,QWORD PTR [rsi]
    1002:\tjne    1005 <NAME_switch_prepare+0x5>
    1003:\txsave64 [rdx]
    1004:\tmov    QWORD PTR [rdi],rcx
    1005:\tret

0000000000002000 <NAME_switch_return>:
    2000:\tcmp    rcx,QWORD PTR [rsi]
    2001:\tje     200b <NAME_switch_return+0xb>
";
    const RETURN: &str = "\
    2009:\txrstor64 [rdx]
    200a:\tmov    QWORD PTR [rdi],rcx
    200b:\tret
";
    const XFD: &str = "\
    2002:\tcmp    r8,QWORD PTR [rdi]
    2003:\tje     2009 <NAME_switch_return+0x9>
    2004:\tmov    eax,r8d
    2005:\twrmsr
";

    fn wrong(own: &str) -> Vec<String> {
        let own = own.replace("NAME", "own");
        let plain = format!("{START}{RETURN}").replace("NAME", "plain");
        let lines = judge(&parse(&format!("{plain}\n{own}")), "own_", "plain_");
        lines.into_iter().flat_map(|line| line.wrong).collect()
    }

    #[test]
    fn what_writes_too_often_or_costs_too_much_is_named() {
        let good = format!("{START}{XFD}{RETURN}");
        assert_eq!(wrong(&good), [""; 0]);
        assert!(wrong("")[0].contains("is not in the object code"));
        for (from, to, named) in [
            ("\twrmsr", "\tnop", "no path `restore +xfd`"),
            ("\tje     2009", "\tnop #", "no path `restore`"),
            ("\twrmsr", "\twrmsr\n2006:\twrmsr", "IA32_XFD is written twice"),
            ("\twrmsr", "\twrmsr\n2006:\tlock or DWORD PTR [rdi],eax", "a locked access"),
            ("\twrmsr", "\twrmsr\n2006:\tcall   400 <helper>", "a call: `call 400 <helper>`"),
            ("\txsave64", "\twrmsr\n1003:\txsave64", "nothing is restored"),
        ] {
            let found = wrong(&good.replacen(from, to, 1));
            assert!(found.iter().any(|why| why.contains(named)), "{to}: {found:?}");
        }
        let more = |path: &str, count| format!("{path}{}", "2002:\tnot rcx\n".repeat(count));
        let long = good.replace("\tmov    eax,r8d", &more("\tmov    eax,r8d\n", 18));
        assert!(wrong(&long).iter().any(|why| why.contains("instructions, 24 are allowed")));
    }
}
