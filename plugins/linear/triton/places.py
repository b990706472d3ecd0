"""Places: which tokens of the flat axis a chunk holds, and which chunks a sequence and a segment hold."""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def chunk_tokens(chunk, starts, ends, T, chunks, C: tl.constexpr, PACKED: tl.constexpr):
    """The first row (int64) of a chunk, and how many tokens its sequence has from there on, C at most.

    PACKED: `starts` and `ends` `[chunks]` hold a chunk's first row and its sequence's end; else each sequence has T
    rows and `chunks` chunks. Offsets within a chunk fit 32 bits; only its first row is counted in 64.
    """
    if PACKED:
        first = tl.load(starts + chunk)
        count = tl.load(ends + chunk) - first
        count = tl.minimum(count, C).to(tl.int32)
    else:
        sequence = chunk // chunks
        place = (chunk - sequence * chunks) * C
        first = tl.cast(sequence, tl.int64) * T + place
        count = tl.minimum(T - place, C)
    return first, count


@triton.jit
def sequence_chunks(sequence, firsts, chunks, PACKED: tl.constexpr):
    """The first chunk of a sequence, and the one after its last; `firsts` `[N + 1]` where sequences are packed."""
    if PACKED:
        begin = tl.load(firsts + sequence)
        end = tl.load(firsts + sequence + 1)
    else:
        begin = sequence * chunks
        end = begin + chunks
    return begin, end


@triton.jit
def segment_chunks(piece, firsts, chunks, segments, length, PACKED: tl.constexpr):
    """First chunk of a segment of `length` chunks and the one after its last; `piece` counts over all sequences."""
    sequence = piece // segments
    begin, end = sequence_chunks(sequence, firsts, chunks, PACKED)
    begin = begin + (piece - sequence * segments) * length
    return begin, tl.minimum(end, begin + length)
