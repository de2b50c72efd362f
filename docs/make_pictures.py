"""Make the README's picture: real output on the embedded photograph.

python docs/make_pictures.py
"""

from pathlib import Path

from PIL import Image, ImageDraw

import onnxcam

GAP, CAPTION = 8, 22


def main() -> None:
    explainer = onnxcam.Explainer(onnxcam.default_model())
    found = explainer.explain(onnxcam.default_photograph(), ["tiger cat", "lynx"])
    photograph = Image.open(onnxcam.default_photograph()).convert("RGB")
    panels = [("the photograph", photograph)]
    panels += [(f"{e.label}: rank {e.rank}, score {e.score:.2f}", e.overlay()) for e in found]
    width = sum(p.width for _, p in panels) + GAP * (len(panels) - 1)
    sheet = Image.new("RGB", (width, photograph.height + CAPTION), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for caption, panel in panels:
        sheet.paste(panel, (left, 0))
        draw.text((left + 4, photograph.height + 3), caption, fill="black", font_size=14)
        left += panel.width + GAP
    small = sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS)
    small.save(Path(__file__).with_name("pictures") / "chelsea.png", optimize=True)


if __name__ == "__main__":
    main()
