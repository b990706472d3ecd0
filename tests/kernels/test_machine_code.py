"""Machine code: loops of a cubin, PTX of a kernel, and what one program of a launch does."""

from __future__ import annotations

import numpy as np
import pytest

from archsearch.errors import ArchsearchError, SpecError
from archsearch.kernels.machine_code.arithmetic import evaluate
from archsearch.kernels.machine_code.cards import CARDS, card_of
from archsearch.kernels.machine_code.emulation import Buffer, emulate
from archsearch.kernels.machine_code.ptx import parse
from archsearch.kernels.machine_code.sass import bodies, matrix_flops

SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
.L_x_0:
        /*0020*/               @P1 LDGSTS.E.BYPASS.128 [R51], desc[UR16][R46.64], P3 ;
.L_x_1:
        /*0030*/                   HGMMA.64x64x16.F32.BF16 R88, gdesc[UR20], R88 ;
        /*0040*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0050*/               @P0 BRA `(.L_x_1) ;
        /*0060*/              @!P5 BRA `(.L_x_0) ;
        /*0070*/                   STG.E.U16 desc[UR16][R8.64], R24 ;
        /*0080*/                   STL [R1], R0 ;
        /*0090*/                   EXIT ;
.L_x_2:
        /*00a0*/                   BRA `(.L_x_2);
        /*00b0*/                   NOP ;
"""

PTX = """
.version 8.7
.target sm_90a
.visible .entry copy(
	.param .u64 .ptr .global .align 1 copy_param_0,
	.param .u64 .ptr .global .align 1 copy_param_1,
	.param .u64 .ptr .global .align 1 copy_param_2,
	.param .u32 copy_param_3
)
.reqntid 64
{
	.reg .pred 	%p<9>;
// %bb.0:                               // one row a program, as many pieces as `counts` has for it
	ld.param.b64 	%rd1, [copy_param_0];
	ld.param.b64 	%rd2, [copy_param_1];
	ld.param.b64 	%rd3, [copy_param_2];
	ld.param.b32 	%r1, [copy_param_3];
	mov.u32 	%r2, %ctaid.x;
	mov.u32 	%r3, %tid.x;
	mul.wide.s32 	%rd4, %r2, 4;
	add.s64 	%rd5, %rd2, %rd4;
	// begin inline asm
	ld.global.b32 { %r4 }, [ %rd5 + 0 ];
	// end inline asm
	setp.lt.s32 	%p1, %r4, 1;
	@%p1 bra 	$L__BB0_3;
	mul.wide.s32 	%rd6, %r3, 16;
	add.s64 	%rd7, %rd1, %rd6;
	setp.lt.s32 	%p2, %r3, %r1;
	mov.b32 	%r5, 0;
$L__BB0_2:
	@%p2 ld.global.v4.b32 { %r6, %r7, %r8, %r9 }, [ %rd7 + 0 ];
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r10,%r11}, {%r6,%r7}, {%r8}, {%r10,%r11};
	add.s64 	%rd7, %rd7, 1024;
	add.s32 	%r5, %r5, 1;
	setp.lt.s32 	%p3, %r5, %r4;
	@%p3 bra 	$L__BB0_2;
	mul.wide.s32 	%rd8, %r3, 64;
	add.s64 	%rd9, %rd3, %rd8;
	st.global.b32 [ %rd9 + 0 ], { %r10 };
$L__BB0_3:
	ret;
}
"""


def test_loops_are_told_apart_with_what_one_pass_of_a_program_does() -> None:
    straight, outer, inner = bodies(SASS, num_warps=4)
    assert (straight.depth, outer.depth, inner.depth) == (0, 1, 2)
    assert (straight.loaded, straight.stored, straight.spilled) == (16 * 128, 2 * 128, 4 * 128)
    assert (outer.loaded, outer.flops) == (16 * 128, 0)
    assert inner.matrix == {"HGMMA.64x64x16.F32.BF16": 1, "HMMA.16816.F32.BF16": 1}
    assert inner.flops == 2 * 64 * 64 * 16 + 4 * 2 * 16 * 8 * 16


@pytest.mark.parametrize(
    ("opcode", "flops"),
    [
        ("HMMA.1688.F32.TF32", 2 * 16 * 8 * 8),
        ("QGMMA.64x128x32.F32.E4M3.E4M3", 2 * 64 * 128 * 32),
        ("IMMA.16832.S8.S8", 2 * 16 * 8 * 32),
        ("DMMA.884", 2 * 8 * 8 * 4),
        ("FFMA", 0),
    ],
)
def test_matrix_instructions_have_their_size_in_their_name(opcode: str, flops: int) -> None:
    assert matrix_flops(opcode) == flops


def test_a_program_is_followed_with_its_own_trip_counts_masks_and_sectors() -> None:
    program = parse(PTX)
    counts = np.array([3, 0, 40], dtype=np.int32)
    arguments = [Buffer(size=1 << 20), Buffer(size=12, contents=counts), Buffer(size=1 << 20), 50]
    found = [emulate(program, arguments, (place, 0, 0), (3, 1, 1), 64) for place in range(3)]
    loop = program.at["$L__BB0_2"]
    assert [trace.passes[loop] for trace in found] == [3, 0, 40]
    assert [trace.memory[0].read for trace in (found[0], found[2])] == [3 * 50 * 16, 40 * 50 * 16]
    assert found[0].memory[0].sectors == 3 * 25 * 32
    assert (found[0].memory[2].written, found[0].memory[2].sectors) == (64 * 4, 64 * 32)
    assert 2 not in found[1].memory
    assert not any(trace.unknown for trace in found)


def test_a_count_that_nobody_knows_is_said() -> None:
    trace = emulate(parse(PTX), [Buffer(size=64), Buffer(size=12), Buffer(size=64), 50], (0, 0, 0), (1, 1, 1), 64)
    assert trace.unknown == 2


def test_a_loop_that_does_not_end_is_an_error() -> None:
    endless = PTX.replace("add.s32 	%r5, %r5, 1;", "add.s32 	%r5, %r5, 0;")
    arguments = [Buffer(size=64), Buffer(size=12, contents=np.array([3], dtype=np.int32)), Buffer(size=64), 50]
    with pytest.raises(ArchsearchError, match=r"L__BB0_2 ran 2000 times"):
        emulate(parse(endless), arguments, (0, 0, 0), (1, 1, 1), 64, most_passes=2000)


@pytest.mark.parametrize(
    ("opcode", "values", "result"),
    [
        ("add.s32", [2**31 - 1, 1], -(2**31)),
        ("mul.wide.u32", [-1, 2], 2 * (2**32 - 1)),
        ("mad.wide.u32", [3, 4, 1 << 40], (1 << 40) + 12),
        ("div.s32", [-7, 2], -3),
        ("rem.s32", [-7, 2], -1),
        ("shr.u32", [-1, 28], 15),
        ("shr.s32", [-16, 2], -4),
        ("bfe.s32", [0b1100, 2, 2], -1),
        ("cvt.u64.u32", [-1], 2**32 - 1),
        ("setp.lt.u32", [1, -1], True),
        ("setp.lt.and.s32", [1, 2, False], False),
        ("and.pred", [None, False], False),
        ("and.pred", [None, True], None),
        ("selp.b32", [5, 6, True], 5),
        ("min.relu.s32", [-4, 3], 0),
        ("add.f32", [1, 2], None),
        ("cvt.rn.f32.s32", [1], None),
    ],
)
def test_arithmetic_is_the_machines(opcode: str, values: list[object], result: object) -> None:
    assert evaluate(opcode, values) == result
    if result is not None and values[0] is not None:
        spread = evaluate(opcode, [np.array([values[0], values[0]]), *values[1:]])
        assert np.broadcast_to(spread, 2).tolist() == [result, result]


def test_what_an_sm_holds_is_kept_by_the_scarcest_thing() -> None:
    card = CARDS["sm_90"]
    assert card.resident(registers=255, shared_bytes=0, num_warps=4) == (2, "registers")
    assert card.resident(registers=32, shared_bytes=96 * 1024, num_warps=4) == (2, "shared memory")
    assert card.resident(registers=32, shared_bytes=1024, num_warps=4) == (16, "registers")
    assert card.resident(registers=16, shared_bytes=0, num_warps=1) == (32, "programs")
    assert card.resident(registers=32, shared_bytes=228 * 1024, num_warps=4)[0] == 0
    with pytest.raises(SpecError, match="--arch sm_35: cards are known of"):
        card_of("sm_35")
