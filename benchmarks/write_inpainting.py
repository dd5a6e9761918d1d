"""Video inpainting, for docs/results.md."""

from __future__ import annotations

from typing import Any

from markdown_tables import table

_KINDS = {"object": "moving objects", "curve": "moving curves", "stationary": "shapes at rest"}


def inpainting_speed(record: dict[str, Any]) -> str:
    """Frames a CPU second and peak memory of the whole process, by size, length and passes."""
    rows = [
        [
            f"{row['size'][1]} x {row['size'][0]}, {row['frames']} frames, {row['passes']} pass"
            + "es" * (row["passes"] > 1),
            f"{row['frames_per_cpu_second']:.1f}",
            str(row["peak_mb"]),
        ]
        for row in record["rows"]
    ]
    return "An object removed from a lossless file, with decoding and encoding.\n\n" + table(
        ["", "frames a CPU second", "peak memory, MB"], rows
    )


def tsam_streaming(record: dict[str, Any]) -> str:
    """Time a frame and peak memory of a stream and of windows."""
    rows = [
        [
            f"{row['way']}, {run['threads']} thread" + "s" * (run["threads"] > 1),
            str(row["frames_computed"]),
            f"{row['cpu_seconds_a_frame']:.2f}",
            f"{row['times_the_stream']:.2f}",
            str(row["peak_mb"]),
            f"{row['largest_difference']:.1g}",
        ]
        for run in record["runs"]
        for row in run["rows"]
    ]
    run = record["runs"][0]
    return (
        f"`{record['network']}` at {record['size'][1]} x {record['size'][0]}, nine frames inside a long clip, "
        f"{run['rounds']} turns, CPU time; other programs ran meanwhile. The standard deviation of the answers is "
        f"{run['deviation_of_answers']:.2g}.\n\n"
        + table(
            ["", "frames computed", "CPU seconds a frame", "x stream", "peak memory, MB", "largest difference"], rows
        )
    )


def inpainting(record: dict[str, Any]) -> str:
    """PSNR and SSIM in the holes, and CPU time, of each method by kind of hole and size."""
    parts = [
        f"Clips: {', '.join(record['clips'])}. PSNR in dB and SSIM are those of the holes alone; in brackets the PSNR "
        "of whole frames. Only the row with oracle flow sees the true frames."
    ]
    for size in dict.fromkeys(tuple(row["size"]) for row in record["rows"]):
        found = {(row["method"], row["kind"]): row for row in record["rows"] if tuple(row["size"]) == size}
        methods = list(dict.fromkeys(method for method, _ in found))
        rows = []
        for method in methods:
            each = [found[method, kind] for kind in _KINDS]
            cells = [f"{one['hole_psnr']:.2f} ({one['frame_psnr']:.2f}), {one['hole_ssim']:.3f}" for one in each]
            rows.append([method, *cells, f"{sum(one['cpu_seconds_a_frame'] for one in each) / len(each):.3f}"])
        cover = [f"{name}, {found[methods[0], kind]['coverage']:.0%}" for kind, name in _KINDS.items()]
        parts.append(f"### {size[1]} x {size[0]}\n\n" + table(["", *cover, "CPU seconds a frame"], rows))
        judged = [method for method in methods if all("rest_psnr" in found[method, kind] for kind in _KINDS)]
        rest = [[method, *(f"{found[method, kind]['rest_psnr']:.2f}" for kind in _KINDS)] for method in judged]
        if rest:
            parts.append(
                "PSNR of the pixels that two passes find in no frame, and that therefore are made up:\n\n"
                + table(["", *_KINDS.values()], rest)
            )
    return "\n\n".join(parts)


def erase_kernels(record: dict[str, Any]) -> str:
    """CPU time with native kernels and without."""
    rows = [[row["what"], row["native_ms"], row["numpy_ms"], f"{row['ratio']:.2f}"] for row in record["rows"]]
    return (
        f"CPU milliseconds at {record['size'][1]} x {record['size'][0]}, {record['level']}, in turns; whole is of 40 "
        "frames.\n\n" + table(["", "native", "numpy", "ratio"], [[str(one) for one in row] for row in rows])
    )


def erase(record: dict[str, Any]) -> str:
    """PSNR and SSIM behind masks of objects by background and method; speed, shares of stages and memory."""
    clips = list(dict.fromkeys(row["clip"] for row in record["fidelity"]))
    found = {(row["method"], row["clip"]): row for row in record["fidelity"]}
    rows = [
        [method, *(f"{found[method, clip]['hole_psnr']:.2f}, {found[method, clip]['hole_ssim']:.3f}" for clip in clips)]
        for method in dict.fromkeys(row["method"] for row in record["fidelity"])
    ]
    costs = [
        [
            f"{row['size'][1]} x {row['size'][0]}, {row['frames']} frames",
            f"{row['frames_per_second']:.1f}",
            f"{row['frames_per_cpu_second']:.1f}",
            ", ".join(f"{stage} {share:.0%}" for stage, share in row["shares"].items()),
            str(row["peak_mb"]),
        ]
        for row in record["costs"]
    ]
    heads = ["", "frames a second", "frames a CPU second", "time by stage", "peak memory, MB"]
    return (
        "Masks of a real object laid over clips without one, so that the truth is known: PSNR in dB and SSIM behind "
        "the masks.\n\n" + table(["", *clips], rows) + "\n\n`tenfold erase --preset fast`, whole process, masks given; "
        "other work shared the machine, which seconds show and CPU seconds do not.\n\n" + table(heads, costs)
    )
