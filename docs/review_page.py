"""Draws the page of a review as a browser shows it, with an image uncovered and a first answer given.

python docs/review_page.py review docs/images/review.png
"""

import argparse
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains

SIZE = (1160, 800)
COLOURS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("review", type=Path, help="the folder that `ugrie review` wrote")
    parser.add_argument("to", type=Path, help="the picture to write")
    parser.add_argument("--image", type=int, default=1, help="number of the image to show")
    args = parser.parse_args()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={SIZE[0]},{SIZE[1] + 200}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
    )
    browser.get((args.review.absolute() / "index.html").as_uri())
    for _ in range(args.image - 1):
        browser.find_element("id", "next").click()
    ActionChains(browser).send_keys(" ").send_keys("3").perform()
    with Image.open(BytesIO(browser.get_screenshot_as_png())) as shot:
        shot.convert("RGB").quantize(COLOURS).save(args.to, optimize=True)
    browser.quit()


if __name__ == "__main__":
    main()
