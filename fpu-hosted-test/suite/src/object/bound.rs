//! The return of a task whose context is bound to its CPU: one comparison where the registers are still its own.

use super::{
    disasm::{Functions, Insn},
    rules::{forbidden, judge as judge_by, problem, Line, Rule},
    walk::{paths, text, End, Path},
};

/// All but the final `ret`: the loads of the two words, the comparison and its jump, and the push and pop of a frame for the
/// call that the other path makes.
const LIMIT: usize = 7;

/// What a return calls whose registers are not its own any more.
const COLD: &str = "bring_in";

/// Judges one function, and what it calls where there is more to do.
pub fn judge(functions: &Functions, name: &str) -> Vec<Line> {
    let body = functions.get(name).map_or(&[][..], |body| body);
    let all = match paths(body, &|called| called.contains("refused")) {
        Ok(all) => all,
        Err(why) => return vec![problem(name, why)],
    };
    let returns = || all.iter().filter(|path| path.end == End::Return);
    let (cold, hits): (Vec<_>, Vec<_>) = returns().partition(|path| cold(path));
    let mut lines: Vec<Line> = match hits[..] {
        [path] => vec![hit(name, path)],
        [] => vec![problem(name, "no path `nothing due`".into())],
        _ => vec![problem(name, "nothing is due on several paths".into())],
    };
    let called = functions.keys().find(|function| function.contains(COLD));
    match (called, cold.is_empty()) {
        (Some(called), false) => lines.extend(judge_by(functions, called, Rule::NoPanic)),
        _ => lines.push(problem(name, format!("does not call `{COLD}`"))),
    }
    lines
}

fn cold(path: &Path<'_>) -> bool {
    path.insns.iter().any(|insn| insn.is_call() && insn.target_name().is_some_and(is_cold))
}
fn is_cold(name: &str) -> bool {
    name.contains(COLD)
}

fn hit(name: &str, path: &Path<'_>) -> Line {
    let instructions = path.insns.len() - 1;
    let mut wrong: Vec<String> = path
        .insns
        .iter()
        .filter_map(|insn| Some(format!("{}: `{}`", barred(insn)?, text(insn))))
        .collect();
    let jumps = path.insns.iter().filter(|insn| insn.is_jump()).count();
    if jumps != 1 {
        wrong.push(format!("{jumps} jumps, not one comparison's"));
    }
    if instructions > LIMIT {
        wrong.push(format!("{instructions} instructions, {LIMIT} are allowed"));
    }
    let listing = path.insns.iter().map(|insn| text(insn)).collect();
    let (function, path, budget) = (name.to_owned(), "nothing due".to_owned(), Some(LIMIT));
    Line { function, path, instructions, budget, wrong, listing }
}

fn barred(insn: &Insn) -> Option<&'static str> {
    let stores = insn.is_store().then_some("a store");
    let moves = insn.touches_fpu().then_some("FPU access");
    forbidden(insn, &|_| false).or(stores).or(moves)
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::object::disasm::parse;

    const RETURN: &str = "\
0000000000001000 <probe_bound_switch_return>:
    1000:\tpush   rax
    1001:\tmov    rax,QWORD PTR [rdi+0x10]
    1002:\tmov    rcx,QWORD PTR [rip+0x1]
    1003:\tcmp    QWORD PTR [rax],rcx
    1004:\tje     1008 <probe_bound_switch_return+0x8>
    1005:\tcall   2000 <_ZN4core8bring_in17h09d46deaabd4f33aE>
    1006:\tcmp    eax,0xe
    1007:\tjne    100a <probe_bound_switch_return+0xa>
    1008:\tpop    rax
    1009:\tret
    100a:\tcall   3000 <probe_refused>
    100b:\tint3

0000000000002000 <_ZN4core8bring_in17h09d46deaabd4f33aE>:
    2000:\tret
";

    fn wrong(text: &str) -> Vec<String> {
        let lines = judge(&parse(text), "probe_bound_switch_return");
        lines.into_iter().flat_map(|line| line.wrong).collect()
    }

    #[test]
    fn what_does_more_than_compare_is_named() {
        assert_eq!(wrong(RETURN), [""; 0]);
        assert!(wrong("")[0].contains("runs past the end"));
        let call = "\tcall   2000 <_ZN4core8bring_in17h09d46deaabd4f33aE>";
        for (from, to, named) in [
            ("\tpush   rax", "\tmov    QWORD PTR [rcx],rax", "a store: `mov"),
            ("\tpush   rax", "\tlock or DWORD PTR [rdi],eax", "a locked access"),
            ("\tpush   rax", "\tmovups xmm0,XMMWORD PTR [rsi]", "FPU access"),
            ("\tpush   rax", "\tcall   400 <helper>", "a call: `call 400 <helper>`"),
            ("\tpush   rax", "\tjs     100a <probe_bound_switch_return+0xa>", "2 jumps"),
            ("\tje     1008 <probe_bound_switch_return+0x8>", "\tnop", "no path `nothing due`"),
            (call, "\tnop", "does not call `bring_in`"),
            ("\n    2000:\tret", "\n    2000:\tcall   10 <core_panic>", "a panic"),
        ] {
            let found = wrong(&RETURN.replacen(from, to, 1));
            assert!(found.iter().any(|why| why.contains(named)), "{to}: {found:?}");
        }
        let long = RETURN.replace("\tpush   rax", "\tpush   rax\n1000:\tnot rcx\n1000:\tnot rdx");
        assert!(wrong(&long).contains(&"8 instructions, 7 are allowed".to_owned()));
    }
}
