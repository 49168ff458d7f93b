#!/usr/bin/env python3
# ratios.py RESULT.json OURS...: how ours compare with the best other overlay of each column in the same run (medians of peers/report.py).
# A ratio above 1 is better than the best other one, whether more is better in that column or less.
import json, sys

COLUMNS = [  # title, metric, more is better, format
    ("TCP 1 Mbit/s", "tcp1_mbps", True, "{:.0f}"),
    ("TCP 4", "tcp4_mbps", True, "{:.0f}"),
    ("TCP reverse", "tcprev_mbps", True, "{:.0f}"),
    ("UDP 64 B recv pps", "udp64_pps", True, "{:.0f}"),
    ("ping p50 us", "rtt_p50_us", False, "{:.0f}"),
    ("ping p99 us", "rtt_p99_us", False, "{:.0f}"),
    ("ping p50 us under TCP 4", "rtt4_p50_us", False, "{:.0f}"),
    ("TCP RR/s", "rr_tps", True, "{:.0f}"),
    ("daemon CPU s/GB", "daemon_cpu_s_per_gb", False, "{:.2f}"),
    ("machine CPU s/GB", "machine_cpu_s_per_gb", False, "{:.2f}"),
    ("RSS MB", "rss_mb", False, "{:.1f}"),
    ("roam tx stall s", "roam_tx_stall_s", False, "{:.3f}"),
    ("roam rx stall s", "roam_rx_stall_s", False, "{:.3f}"),
]

peers = json.load(open(sys.argv[1]))["peers"]
ours = [name for name in sys.argv[2:] if name in peers]


def median(peer, metric):
    summary = peers[peer]["summary"]
    if metric not in summary:
        return None
    if metric.endswith("stall_s") and summary[metric.replace("stall_s", "survived")]["min"] < 1:
        return None
    return summary[metric]["median"]


rows = [["ours against the best other overlay", "best", "its figure"] + [cell for name in ours for cell in (name, "ratio")]]
for title, metric, more, form in COLUMNS:
    others = {p: v for p in peers if p != "direct" and p not in ours and (v := median(p, metric)) is not None}
    best = (max if more else min)(others, key=others.get) if others else None
    row = [title, best or "-", form.format(others[best]) if best else "-"]
    for name in ours:
        own = median(name, metric)
        row.append("-" if own is None else form.format(own))
        low, high = (others[best], own) if more and best else (own, others.get(best))
        row.append(f"{high / low:.2f}" if low and high else "-")
    rows.append(row)
print("\n".join("| " + " | ".join(r) + " |" for r in [rows[0], ["---", "---"] + ["--:"] * (len(rows[0]) - 2)] + rows[1:]))
