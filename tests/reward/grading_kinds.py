r"""Pairs of answers by kind, as a careful teacher judges them: `answer | gold answer`, equal or different."""

EQUAL = {
    "e-notation": r"""
        3.3 \times 10^{12} | 3.3e12
        3.3e12 | 3.3 \times 10^{12}
        3.3E12 | 3.3e12
        3.3e+12 | 3.3e12
        33 \times 10^{11} | 3.3e12
        3300000000000 | 3.3e12
        \frac{33}{10}\times10^{12} | 3.3e12
        E = 3.3 \times 10^{12} \text{ J} | 3.3e12
        E \approx 3.3e12 \text{ J} | 3.3 \times 10^{12}
        10^{14} | 1e14
        1.0 \times 10^{14} \mathrm{~Hz} | 1e14
        8.7E8 | 870000000
        8.7\cdot 10^8 | 8.7e8
        8.7 * 10^8 | 8.7e8
        8.7 × 10⁸ | 8.7e8
        1.39 \times 10^{-10} \text{ m} | 1.39e-10
        1.39 × 10^-10 m | 1.39e-10
        1.39\times 10^{-8}\text{ cm} | 1.39\times 10^{-10}\text{ m}
        -1.6 \times 10^{-19} | -1.6e-19
        \lambda = 6.5 \times 10^{-7} \, \text{m} | 6.5e-7
        650 \text{ nm} | 6.5\times10^{-7}\text{ m}
        4.5 \times 10^{33} \text{ erg/s} | 4.5e33
        1.50e-3 | 0.0015
        2e27 | 2 \times 10^{27} \, \mathrm{kg}
        0.033 \times 10^{14} | 3.3e12
        3 \times 10^8 m/s | 3e8
    """,
    "case and symbols": r"""
        \frac{M}{M+m} | \frac{M}{m+M}
        mM | Mm
        R^2 - r^2 | (R-r)(R+r)
        \varphi | \phi
        \Delta x \Delta p | \Delta p \Delta x
        \text{B} | B
        b | \text{B}
        \mathbf{F} | F
        \vec{F} | \mathbf{F}
        g \left( M + m \right) | (m+M) g
    """,
    "trailing variable": r"""
        10t | 10 t
        2s | 2 \cdot s
        \frac{1}{2} g t^2 | \frac{gt^2}{2}
        m g h | h m g
        v t | t v
        5 c | 5c
        \frac{3}{4} h | 0.75h
        2 \pi r h | 2\pi h r
        \frac{t}{3} | t/3
        3m | 3 m
        10 \text{ s} | 10
        4 \text{ h} | 4
        x = 10t | 10t
        \sin(3t) | \sin 3t
        e^{-2t} | \exp(-2t)
        e^{-t/\tau} | \exp\left(-\frac{t}{\tau}\right)
        5d | 5 d
    """,
    "tiny and large": r"""
        \frac{1}{2^{98}} | 2^{-98}
        \frac{2}{3^{41}} | 2 \cdot 3^{-41}
        \frac{1}{1024^{10}} | \frac{1}{2^{100}}
        1/20! | \frac{1}{20!}
        10^{-30} | 1e-30
        2^{100} | 1267650600228229401496703205376
        2^{2015}-1 | 2 \cdot 2^{2014} - 1
        3^{2^5} | 3^{32}
    """,
    "imaginary": r"""
        \frac{1-i}{2} | \frac{1}{1+i}
        i^2 | -1
        |1+i| | \sqrt{2}
        |3-4i| | 5
        e^{i\pi} + 1 | 0
        e^{i \pi/2} | i
        \cos\theta + i \sin\theta | e^{i\theta}
        2i | i \cdot 2
        \sqrt{-9} | 3i
        (1+i)^2 | 2i
        \frac{-1+i\sqrt{3}}{2} | e^{2\pi i/3}
        -1 \pm 2i | -1+2i, -1-2i
        i\sqrt{2} | \sqrt{2} i
        \sqrt{-2} | \sqrt{2}i
        z = 1 + i | 1+i
        \frac{1}{i} | -i
        \frac{e^{ix}-e^{-ix}}{2i} | \sin x
        \mathrm{i} | i
    """,
    "base": r"""
        1011_2 | 1011_{2}
        1011_{\text{two}} | 1011_{2}
        2A_{16} | 2A_{\text{16}}
        52_{(8)} | 52_8
        42_{10} | 42
        42 | 42_{10}
        \text{2A}_{16} | 2A_{16}
        204_5 | 204_{\text{five}}
    """,
    "index": r"""
        v_{max} | v_{\max}
        v_{\text{max}} | v_{\mathrm{max}}
        E_1 + E_2 | E_{2}+E_{1}
        m_1 m_2 | m_2 m_1
        x_{n+1} | x_{1+n}
        \lambda_{\text{red}} | \lambda_{red}
        C_1 e^t + C_2 | C_{2} + C_{1} e^{t}
        a₁ | a_1
        T_{0} | T_0
        \frac{v_0^2}{2g} | v_{0}^{2} / (2g)
        \omega_0 t | t \omega_{0}
    """,
    "percent": r"""
        12.5\% | 12.5
        12.5 | 12.5%
        0.125 | 12.5\%
        \frac{1}{8} | 12.5\%
        \frac{100}{3}\% | \frac{1}{3}
        66\frac{2}{3}\% | \frac{2}{3}
        7.41 percent | 7.41\%
        1,234\% | 1234
        -3.5\% | -3.5
        50 \text{ percent} | 50\%
        50 \text{ percent} | 0.5
        5 % | 5
        33.\overline{3}\% | \frac{1}{3}
        100\% | 1
        x = 25\% | 0.25
    """,
    "interval": r"""
        1 < x < 2 | (1,2)
        (1,2) | 1<x<2
        x \in (1, 2) | (1,2)
        x \in (1,2) | 1 < x < 2
        ]1,2] | (1,2]
        [1;2] | [1,2]
        [1,2[ | [1,2)
        2 > x > 1 | 1 < x < 2
        x > 1 | (1, \infty)
        x > 1 | (1, +\infty)
        1 < x | x > 1
        x \geq 1 | [1, \infty)
        x ≥ 1 | x >= 1
        \{x \mid x \geq 1\} | [1,\infty)
        \{x \in \mathbb{R} : 1 < x < 2\} | (1,2)
        x \neq 0 | (-\infty,0) \cup (0,\infty)
        x \ne 0 | \mathbb{R} \setminus \{0\}
        x \in \mathbb{R} \setminus \{0\} | x \neq 0
        x \neq 1, x \neq 2 | (-\infty,1)\cup(1,2)\cup(2,\infty)
        x < -1 or x > 1 | (-\infty,-1) \cup (1,\infty)
        (1,\infty) \cup (-\infty,-1) | (-\infty,-1) \cup (1,\infty)
        |x| < 2 | (-2,2)
        -2 < x < 2 | |x| < 2
        |x| > 1 | (-\infty,-1)\cup(1,\infty)
        x^2 \le 4 | [-2,2]
        2x > 4 | x > 2
        -x \le 3 | x \ge -3
        \left[\frac{1}{2}, 1\right) | [0.5, 1)
        (-\infty, \infty) | \mathbb{R}
        x > 2a | 2a < x
        a < x < b | (a,b)
        (0,1) \cup (1,2) | (1,2) \cup (0,1)
        [0,1] \cup [1,2] | [0,2]
        k \le \frac{1}{4} | (-\infty, 0.25]
        0 \le x \le 2\pi | [0, 2\pi]
        x > 1 \text{ and } x < 3 | (1,3)
        x \in [1,2] \cup [3,4] | 1 \le x \le 2 \text{ or } 3 \le x \le 4
        \sqrt{2} < x | (\sqrt{2}, \infty)
        x \not= 3 | x \neq 3
    """,
    "degrees": r"""
        60 | 60^\circ
        60° | 60^{\circ}
        60\degree | 60
        60 degrees | 60^\circ
        60 \text{ degrees} | 60
        60^{\circ} | \frac{\pi}{3}
        30^\circ, 150^\circ | 30, 150
        30°, 150° | 150^{\circ}, 30^{\circ}
        (2, 60^\circ) | (2, 60°)
        \theta = 45^\circ | 45
        \angle ABC = 45^\circ | 45^{\circ}
        \sin 30^\circ | \frac{1}{2}
        \tan(45°) | 1
        4\cos 20^\circ | 4 \cos(20°)
        90^{\text{o}} | 90
        90^o | 90
        \frac{\pi}{6} \text{ rad} | \frac{\pi}{6}
        180^{\circ} - 2\alpha | 180° - 2\alpha
        22.5^\circ | 22.5
        25^\circ \text{C} | 25
        25 °C | 25^{\circ} \mathrm{C}
    """,
    "units": r"""
        5 \text{ cm} | 5
        5 | 5 \text{ cm}
        5cm | 5 \text{ cm}
        5 cm | 5\,\mathrm{cm}
        100 \text{ cm} | 1 \text{ m}
        1 km | 1000 m
        3.6 km/h | 1 m/s
        9.8 \text{ m/s}^2 | 9.8
        9.8 \frac{\text{m}}{\text{s}^2} | 9.8 \text{ m/s}^2
        9.8\ \mathrm{m}\,\mathrm{s}^{-2} | 9.8 m/s^2
        9.8 m/s² | 9.8
        25 \text{ square feet} | 25 \text{ ft}^2
        25 \text{ sq. units} | 25
        12 \text{ cubic inches} | 12 \text{ in}^3
        60 mph | 60 \text{ miles per hour}
        \$5 | 5
        5 | \$5.00
        $5.50 | 5.5
        \$1,200 | 1200
        5 \text{ dollars} | \$5
        500 \text{ cents} | \$5
        2.5 million | 2500000
        2.5 \text{ million} | 2{,}500{,}000
        \$3 \text{ billion} | 3000000000
        15 apples | 15
        15 \text{ students} | 15
        12 \text{ ways} | 12
        7 \text{ hours}. | 7
        2 \text{ hours} | 120 \text{ minutes}
        12\sqrt{13}\text{ feet} | 12\sqrt{13}
        4\pi \text{ cm}^2 | 4\pi
        \frac{3}{4} \text{ hour} | 0.75
        1\frac{1}{2} hours | 1.5
        3:30 \text{ p.m.} | 3:30
        3:30 PM | 3\text{:}30 \text{ p.m.}
        10 N | 10 \text{ N}
        10 \text{ N}\cdot\text{m} | 10
        2.0 \times 10^3 \text{ kg/m}^3 | 2000
        5 \Omega | 5 \text{ ohms}
        40 \mu\text{m} | 40
        £20 | 20
        5 m | 5
        5\ \text{m} | 5
        10 kg | 10
        t = 5 \text{ s} | 5
        0.5 \text{ mol/L} | 0.5
        8 \text{ meters} | 8
        78 kg·m/s | 78
    """,
    "programs and unicode": r"""
        pi/2 | \frac{\pi}{2}
        2*pi | 2\pi
        2pi | 2\pi
        π/4 | \frac{\pi}{4}
        3π | 3\pi
        sqrt(2)/2 | \frac{\sqrt{2}}{2}
        sqrt(3) | \sqrt{3}
        2*sqrt(3) | 2\sqrt{3}
        √3/2 | \frac{\sqrt3}{2}
        2√5 | 2\sqrt{5}
        √(x+1) | \sqrt{x+1}
        ∛8 | 2
        x**2 + 1 | x^2+1
        x² + 1 | x^2+1
        x^(1/2) | \sqrt{x}
        2^(-3) | \frac{1}{8}
        exp(-x) | e^{-x}
        exp(1) | e
        log(x)/log(2) | \log_2 x
        ln(2) | \ln 2
        np.sqrt(2) | \sqrt{2}
        np.pi | \pi
        math.sqrt(5) | \sqrt5
        sin(pi/3) | \frac{\sqrt{3}}{2}
        arcsin(1/2) | \frac{\pi}{6}
        atan(1) | \pi/4
        ½ | 0.5
        2½ | \frac{5}{2}
        ¾ | \frac{3}{4}
        −5 | -5
        –5 | -5
        3 × 4 | 12
        x ≤ 2 | x \le 2
        ∞ | \infty
        -∞ | -\infty
        inf | \infty
        x ≠ 2 | x \neq 2
        10⁻³ | 0.001
        (1/2)*x | \frac{x}{2}
        abs(x) | |x|
        α + β | \beta + \alpha
        {1, 2} ∪ {3} | \{1,2,3\}
        ± 2 | 2, -2
        ∅ | \emptyset
        a·b | ab
        8 ÷ 3 | \frac83
        1⁄2 | \frac12
    """,
    "roots and logarithms": r"""
        \sqrt{1/n} | \frac{1}{\sqrt n}
        \sqrt{\frac{a}{b}} | \frac{\sqrt a}{\sqrt b}
        \frac{\sqrt{ab}}{b} | \sqrt{\frac{a}{b}}
        \ln x^2 | 2\ln x
        \ln(ab) | \ln a + \ln b
        -\ln 2 | \ln\frac12
        \ln\sqrt{x} | \frac12 \ln x
        \log_2 8 | 3
        \log_{10} 100 | 2
        \lg 5 | \log_{10} 5
        \log 5 | \log_{10} 5
        \sqrt{8} | 2\sqrt{2}
        \sqrt[3]{16} | 2\sqrt[3]{2}
        \sqrt{3+2\sqrt2} | 1+\sqrt2
        (x^2)^{1/2} | \sqrt{x^2}
        \sqrt{4x^2y} | 2x\sqrt{y}
        x^{-1/2} | \frac{1}{\sqrt{x}}
        \ln|x| | \ln x
        \frac{1}{\sqrt{2}} | \frac{\sqrt 2}{2}
        a^{x} a^{y} | a^{x+y}
        \sqrt[3]{-8} | -2
        \sqrt{2gh} | (2gh)^{1/2}
        e^{2\ln x} | x^2
        \log_3 5 | \frac{\ln 5}{\ln 3}
    """,
    "loose LaTeX": r"""
        \sqrt(2) | \sqrt{2}
        \sqrt 3 | \sqrt{3}
        \sqrt3 | \sqrt{3}
        \sqrt17 | \sqrt{17}
        \frac12 | \frac{1}{2}
        \frac 1 2 | \frac{1}{2}
        \frac{1}2 | \frac{1}{2}
        \frac1{2} | \frac{1}{2}
        \frac{17}4 | \frac{17}{4}
        \tfrac34 | 0.75
        \cfrac{1}{3} | \frac13
        x^10 | x^{10}
        2^-1 | 0.5
        e^-x | e^{-x}
        \left(1, 2\right) | (1,2)
        \Big( 1, 2 \Big) | (1,2)
        1 {,} 234 | 1234
        1{,}234{,}567 | 1234567
        12\,345 | 12345
        \dfrac{\pi}{4} | \frac\pi4
        1 : 2 | 1:2
        2:4 | 1:2
        1/2 | 1:2
        3 \text{ to } 4 | 3:4
        \binom 52 | 10
        5.0 | 5
        .5 | 0.5
        \frac{-1}{2} | -\frac{1}{2}
        -\frac{-1}{2} | \frac12
        x\cdot y | xy
        1,\!000,\!000 | 1000000
        \operatorname{lcm}(4,6) | 12
        \log_{2}8 | 3
    """,
    "markup": r"""
        **73** | 73
        *73* | 73
        `73` | 73
        __73__ | 73
        $73$ | 73
        $$73$$ | 73
        \(73\) | 73
        \[73\] | 73
        \text{73} | 73
        \mathbf{73} | 73
        \underline{\textbf{73}} | 73
        \boldsymbol{x+1} | x+1
        \mathrm{73} | 73
        73. | 73
        73 \\ | 73
        \displaystyle 73 | 73
        \large 73 | 73
        {73} | 73
        \quad 73 | 73
        \textbf{73} | 73
        \color{red}{73} | 73
        **x = 73** | 73
        "73" | 73
        73, | 73
        = 73 | 73
        \approx 73 | 73
        x = 73 | 73
        x=73. | 73
    """,
    "letters and words": r"""
        A | (A)
        (A) | A
        A. | A
        A) | A
        A. 5 | A
        (A) 5 | A
        \textbf{(A) } 5 | A
        \text{(A)} | A
        Option B | B
        \text{Option B} | B
        Choice C | C
        The answer is B | B
        b | B
        (b) | B
        A: 12 | A
        true | True
        TRUE | true
        \text{yes} | Yes
        Yes | True
        Even | even
        \text{no solution} | no solution
        \text{No solutions} | no solution
        Evelyn | \text{Evelyn}
        \text{A, C} | A,C
        A and C | A, C
        C, A | A, C
        \text{Monday} | Monday
        \text{five} | 5
        \emptyset | \varnothing
        \mathrm{True} | True
        p - q | \text{p - q}
        \text{(1) and (4)} | (1) and (4)
    """,
    "repeating and mixed": r"""
        0.\overline{3} | \frac13
        0.\overline{09} | \frac{1}{11}
        0.1\overline{6} | \frac16
        1.\overline{3} | \frac43
        2.\bar{3} | \frac73
        0.\dot{1}\dot{2} | \frac{12}{99}
        0.(3) | \frac{1}{3}
        0.333... | \frac13
        0.\dot{6} | 2/3
        -0.\overline{3} | -\frac{1}{3}
        1 1/2 | 1.5
        3 3/4 | \frac{15}{4}
        3\frac34 | 3.75
        2\dfrac{1}{3} | \frac{7}{3}
        -1\frac12 | -\frac32
        5 \frac{1}{2} | 5.5
        10\frac{1}{10} | 10.1
    """,
    "sets and matrices": r"""
        \{1,2,3\} | \{3,2,1\}
        1, 2, 3 | \{1,2,3\}
        1 and 2 | 2, 1
        1 or 2 | 1,2
        1 \text{ and } 2 | \{1, 2\}
        1; 2; 3 | 1,2,3
        (1,2),(3,4) | (3,4),(1,2)
        (1,2) \text{ and } (3,4) | (1,2),(3,4)
        \{(1,2),(3,4)\} | (1,2), (3,4)
        (1,2)(3,4) | (1,2),(3,4)
        x = 1, x = 2 | 1, 2
        x = 1 \text{ or } x = 2 | 1,2
        x=1,2 | 1,2
        x_1 = 1, x_2 = 2 | 1,2
        x \in \{1,2\} | 1,2
        (x,y) = (1,2) | (1,2)
        x=1, y=2 | (x,y)=(1,2)
        y=2, x=1 | x=1, y=2
        (1,2) | x=1,y=2
        1 \pm \sqrt{2} | 1+\sqrt2, 1-\sqrt2
        \pm 3 | -3, 3
        x = \pm 3 | x = 3, x = -3
        \langle 1, 2 \rangle | (1,2)
        \begin{bmatrix} 1 \\ 2 \end{bmatrix} | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
        \begin{pmatrix} 0.5 & 1 \end{pmatrix} | \begin{pmatrix} \frac12 & 1 \end{pmatrix}
        (1,2) | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
        (1,2,3)^T | \begin{bmatrix}1\\2\\3\end{bmatrix}
        \frac{1}{2}\begin{pmatrix} 2 & 4 \\ 6 & 8 \end{pmatrix} | \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
        \begin{pmatrix} 1 & 2\end{pmatrix}^T | \begin{pmatrix} 1 \\ 2\end{pmatrix}
        \{5\} | 5
        (5) | 5
        [1,2,3] | (1,2,3)
        \{1\} \cup \{2\} | \{1,2\}
        (0, 0), (\frac12, 1) | (0.5, 1), (0,0)
        f(x) = x, f(x) = -x | f(x) = \pm x
        1, \frac{2}{4} | \frac12, 1
        \{2^n : n \in \mathbb{N}\} | \{2^{n} : n \in \mathbb{N}\}
    """,
    "formulas": r"""
        y = 2x + 1 | 2x+1
        y = 2x + 1 | y = 1 + 2x
        2x - y + 1 = 0 | y = 2x+1
        y - 2x = 1 | y=2x+1
        x^2+y^2 = 4 | \frac{x^2}{4}+\frac{y^2}{4} = 1
        f(x) = x^2 | x^2
        f(x) = x^2 | f(x)=x\cdot x
        f(t) = t^2 | f(x) = x^2
        f(x)=x^2 | f\left(x\right)=x^2
        f'(x) = 2x | 2x
        \frac{dy}{dx} = 2x | 2x
        y' + y = 0 | \frac{dy}{dx} + y = 0
        \dot{x} = -kx | x' = -kx
        \ddot{x} + \omega^2 x = 0 | \frac{d^2x}{dt^2} = -\omega^2 x
        \sinh x | \frac{e^x-e^{-x}}{2}
        \sin^2 x + \cos^2 x | 1
        \tan x | \frac{\sin x}{\cos x}
        \sin 2x | 2\sin x\cos x
        \frac{n(n+1)}{2} | \frac{n^2+n}{2}
        \sum_{k=1}^{n} k | \frac{n(n+1)}{2}
        n! | n \cdot (n-1)!
        \binom{n}{2} | \frac{n(n-1)}{2}
        (x-1)(x+1) | x^2-1
        \frac{x^2-1}{x-1} | x+1
        C_1 e^{t} + C_2 e^{-t} | C_2 e^{-t} + C_1 e^{t}
        2^{n+1} | 2\cdot 2^n
        (-1)^n | (-1)^{n+2}
        \lfloor n/2 \rfloor | \left\lfloor\frac{n}{2}\right\rfloor
        x = \frac{-b \pm \sqrt{b^2-4ac}}{2a} | \frac{-b+\sqrt{b^2-4ac}}{2a}, \frac{-b-\sqrt{b^2-4ac}}{2a}
        \cos^{-1} x | \arccos x
        AB = 5 | 5
        \text{Area} = 12 | 12
        P(A) = \frac14 | 0.25
        S_{ABC} = 6 | 6
        m+n = 15 | 15
        2^{10} = 1024 | 1024
        x = 2 + 3 = 5 | 5
        |AB| = 3 | 3
        a_n = 2n | 2n
        a_{n} = 2n-1 | a_n = -1+2n
        \frac{1}{2a}(e^{at} - e^{-at}) | \frac{\sinh(a t)}{a}
        \ln(x+\sqrt{x^2+1}) | \operatorname{arcsinh} x
        \max(a,b) | \max\{a, b\}
        \gcd(m,n) | \gcd(n,m)
    """,
    "decimals": r"""
        0.333333 | \frac13
        0.6666667 | \frac23
        3.14159265 | \pi
        1.4142136 | \sqrt{2}
        0.5 | \frac{1}{2}
        99.5909575 | 99.59095749
        1.50 | 1.5
        23.0 | 23
        -0.25 | -\frac14
        2.7182818 | e
        1,234.5 | 1234.5
        1 000 000 | 1000000
        0.30000000000000004 | 0.3
    """,
    "further": r"""
        6.022e23 | 6.022\times 10^{23}\text{ mol}^{-1}
        v = 2.19 \times 10^6 \text{ m/s} | 2.19e6
        2.19\times10^{6}\ \mathrm{m/s} | 2.19e6
        2.19 \times 10^6 \frac{m}{s} | 2.19e6
        1.07\times 10^{16}\ \text{cm}^{-3} | 1.07e16
        \sim 3 \times 10^6 | 3e6
        ~3e6 | 3e6
        10^{11} | 1e11
        10^{11} \text{ Hz} | 1e11
        1 \times 10^{11} | 1e11
        1\times 10^{-3} | 0.001
        n = 6.5 \times 10^{-2} | 6.5e-2
        \mathbf{3.3 \times 10^{12}} | 3.3e12
        3.3\,\times\,10^{12} | 3.3e12
        3.3 \times {10}^{12} | 3.3e12
        3.3\times10^{12}\,\mathrm{J} | 3.3e12
        3,300,000,000,000 | 3.3e12
        3.3 x 10^12 | 3.3e12
        3.3x10^{12} | 3.3e12
        3.3 X 10^12 | 3.3e12
        1.325\times10^{-27} kg m/s | 1.325e-27
        \approx 2.55\times10^{-10}\,\mathrm{m} | 2.55e-10
        6\frac{1}{4} | 6.25
        \dfrac{\sqrt{3}}{3} | 1/\sqrt{3}
        x^{2}+2 x+1 | (x+1)^2
        \frac{GMm}{r^2} | G\frac{Mm}{r^{2}}
        \sqrt{\frac{2GM}{R}} | \left(\frac{2GM}{R}\right)^{1/2}
        \frac{1}{4\pi\epsilon_0}\frac{q_1q_2}{r^2} | \frac{q_{1} q_{2}}{4 \pi \epsilon_{0} r^{2}}
        \frac{mv^2}{2} | \frac12 m v^{2}
        \hbar\omega | \omega \hbar
        \frac{h}{2\pi} | \frac{h}{2 \pi}
        \rho g h | h \rho g
        e^{-\gamma t}\cos(\omega t) | \cos (\omega t) e^{-\gamma t}
        I_0 e^{-t/RC} | I_{0} e^{-\frac{t}{R C}}
        \frac{A}{s+1} | \frac{A}{1+s}
        Y(s) = \frac{1}{s^2+1} | \frac{1}{s^{2}+1}
        \frac{d y}{d t}+\frac{d x}{d t}=0 | x' + y' = 0
        m\ddot{x} + b\dot{x} + kx = 0 | m x^{\prime \prime}+b x^{\prime}+k x=0
        \frac{d^{2} x}{d t^{2}} | \ddot{x}
        C_{1} \cos 3t + C_{2} \sin 3t | C_2 \sin(3t) + C_1\cos(3t)
        \arctan 2 | \tan^{-1} 2
        \arctan 2 | \tan^{-1}(2)
        \sin^{-1}\frac12 | \frac{\pi}{6}
        \cot x | \frac{1}{\tan x}
        \sec^2 \theta | 1+\tan^2\theta
        \log_{2}(x+1) | \frac{\ln(1+x)}{\ln 2}
        \exp{(-x)} | e^{-x}
        \exp\left(-\frac{x^2}{2}\right) | e^{-x^2/2}
        n\log n | n\log(n)
        O(n \log n) | O(n\log n)
        \Theta(n^2) | \Theta(n^{2})
        2^{n}-1 | -1+2^n
        \frac{2^{n+1}}{3} | \frac{2\cdot 2^n}{3}
        k=2 | 2
        n\ge 5 | n \geq 5
        [0,1] | 0 \le t \le 1
        t \in [0,1] | 0 \le t \le 1
        -\infty < x < 2 | (-\infty, 2)
        x<2, x\neq 1 | (-\infty,1)\cup(1,2)
        all real numbers | \mathbb{R}
        \text{all real numbers} | (-\infty,\infty)
        \{x: 1<x\leq 2\} | (1,2]
        \{ x \in \mathbb{R} \mid x \ne 1\} | x\neq1
        (3, +\infty) | x>3
        \left(-\infty,-3\right]\cup\left[3,\infty\right) | x\le -3 \text{ or } x\ge 3
        x \ge 3 or x \le -3 | (-\infty,-3]\cup[3,\infty)
        (1,2]\cup[3,4) | [3,4) \cup (1,2]
        a \in (0, 1) | 0 < a < 1
        1 < a | a>1
        5 \text{ m}^2 | 5
        12 m^2 | 12
        12 m^3 | 12 \text{ m}^3
        50 km/hr | 50
        50 \text{ km/hr} | 50 \text{ km/h}
        3 \times 10^{8} \mathrm{~m} / \mathrm{s} | 3e8
        \frac{4}{3} \mathrm{ ~ m} / \mathrm{s} | \frac{4}{3}
        20\% | 20
        2.5 \text{ s} | 2.5
        2.5s | 2.5 s
        \text{\$}5 | 5
        USD 5 | 5
        5 USD | 5
        Rs. 500 | 500
        500 rupees | 500
        €5 | 5
        5 € | 5
        5€ | 5
        \text{5 dollars} | 5
        \text{5 cm} | 5
        \text{15 apples} | 15
        5\text{ }\text{cm} | 5
        5 \text{cm}^{2} | 5
        5 \;\text{cm} | 5
        5~\mathrm{cm} | 5
        5\,cm | 5
        1 \text{ hour} | 60 \text{ minutes}
        1.5 \text{ hours} | 1.5
        0.5 km | 500 m
        3 yards | 9 feet
        2 dozen | 24
        1 kg | 1000 g
        1 L | 1000 mL
        72 km/h | 20 m/s
        5 \text{ sq cm} | 5
        5 square meters | 5 \text{ m}^2
        8 \text{ units} | 8
        8 units | 8
        8 \text{ square units} | 8
        16 \text{ ounces} | 16
        15 minutes | 15
        4\text{th} | 4
        11^{\text{th}} | 11
        11th | 11
        1/2 hour | 0.5
        2 and 3 | 2,3
        \text{2 and 3} | 2, 3
        2,3 | \{2\}\cup\{3\}
        x_1=2,x_2=3 | x_1=2, x_2=3
        a=2,b=3 | 2,3
        a=2, b=3 | b=3, a=2
        (a,b)=(2,3) | a=2, b=3
        a=2 \text{ and } b=3 | a=2,b=3
        (a,b,c) = (1,2,3) | (1,2,3)
        (2,3), (3,2) | (3,2) \text{ and } (2,3)
        (x, y) = (2, 3), (3, 2) | (2,3),(3,2)
        (x, y) = (2, 3), (x,y) = (3, 2) | (2,3),(3,2)
        (2;3) | (2,3)
        \left\{ (2,3) \right\} | (2,3)
        \left[ 2, 3 \right] | [2,3]
        \left\langle 2, 3 \right\rangle | (2,3)
        \begin{bmatrix}2&3\end{bmatrix} | \begin{pmatrix}2&3\end{pmatrix}
        [[1,2],[3,4]] | \begin{pmatrix}1&2\\3&4\end{pmatrix}
        \begin{array}{cc}1&2\\3&4\end{array} | \begin{pmatrix}1&2\\3&4\end{pmatrix}
        \begin{vmatrix}1&2\\3&4\end{vmatrix} | -2
        -\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}-1\\-2\end{pmatrix}
        \begin{pmatrix}1/2\\2\end{pmatrix} | \begin{pmatrix}\frac{1}{2}\\2\end{pmatrix}
        \mathbf{0} | 0
        \text{The function is } f(x)=2x | f(x)=2x
        y-3=2(x-1) | y=2x+1
        3x+2y=6 | y=-\frac32x+3
        x=2y | y=\frac{x}{2}
        x^2+y^2-4=0 | x^2+y^2=4
        \frac{x^2}{4}+\frac{y^2}{9}=1 | 9x^2+4y^2=36
        1+x | x+1
        S=\frac{n}{2}(a+l) | \frac{n(a+l)}{2}
        \text{(A) }5 | \text{(A)}
        \textbf{(C)}~12 | C
        \text{C} | \textbf{(C)}
        (C) 12 | 12
        C. 12 | C
        [C] | C
        Answer: C | C
        Option (C) | C
        The correct option is C | C
        C, D | \text{C, D}
        \text{C and D} | C,D
        yes | \text{Yes}
        Yes. | yes
        No | no
        none | \text{None}
        \text{infinitely many} | infinitely many
        \text{does not exist} | DNE
        undefined | \text{Undefined}
        \text{Right triangle} | right triangle
        a circle | circle
        \text{odd} | Odd
        1\frac{2}{3} | \frac53
        1 2/3 | \frac53
        1+2/3 | \frac53
        -2 1/2 | -2.5
        0.\overline{142857} | 1/7
        0.1\dot{6} | 1/6
        0.\overline{36} | \frac{4}{11}
        0.666\ldots | \frac23
        3.\overline{3} | 10/3
        0.\bar{6} | \frac23
        .\overline{3} | 1/3
        0.\overline{3}\% | \frac13\%
        0.999... | 1
        30^{\circ} | \pi/6
        \angle A = 30^\circ | 30
        30^\circ \text{ and } 60^\circ | 30, 60
        (30^\circ,60^\circ) | (30,60)
        30 deg | 30
        30 \text{ deg} | 30
        \sin(30^\circ)+1 | 1.5
        \cos 60° | \frac12
        2\sin 45^\circ | \sqrt2
        \tan^{-1}(1) | 45^\circ
        60^\circ < x < 90^\circ | (60,90)
        \frac{2\pi}{3} | 120^\circ
        5(x+1) | 5x+5
        2(3) | 6
        (2)(3) | 6
        2 \times 3 | 6
        2^3 \cdot 5 | 40
        10!/(8!) | 90
        \frac{10!}{8!2!} | 45
        C(5,2) | 10
        {5 \choose 2} | 10
        {}_5C_2 | 10
        \binom{10}{3} | 120
        3^{100}-1 | 3^{100} - 1
        2^{2024} | 4^{1012}
        \sqrt{2\sqrt{2}} | 2^{3/4}
        \sqrt[4]{8} | 2^{0.75}
        \lfloor 3.7 \rfloor | 3
        5 \pmod{7} | 5
        x \equiv 5 \pmod 7 | 5
        x \equiv 3 \pmod{7} | x\equiv 3 \pmod 7
        3.3e+12 | 3.3e12
        3.3\text{e}12 | 3.3e12
        3.3\mathrm{e}{12} | 3.3e12
        3.3 \cdot 10^{12} \text{J} | 3.3e12
        3.3\times10^{12}\text{ Joules} | 3.3e12
        3.3 TJ | 3.3e12 J
        3.3 \times 10^{9} \text{ kJ} | 3.3 \times 10^{12} \text{ J}
        10^{-3} | 1e-3
        e^{-3} | \frac{1}{e^3}
        2e | e+e
        10^{14}Hz | 1e14
        T \approx 5.3 \times 10^3 K | 5.3e3
        1.6e-19 C | 1.6e-19
        \frac{1}{2^{10}} | \left(\frac12\right)^{10}
        M m g | g m M
        4 s | 4s
        \frac{5}{2} t | 2.5t
        -3c | -3 c
        5\,h | 5h
        m\,g\,h | mgh
        -4i | -4 i
        (2+3i)(2-3i) | 13
        \overline{2+3i} | 2-3i
        \frac{5}{1+2i} | 1-2i
        e^{2\pi i/3} | -\frac12+\frac{\sqrt3}{2}i
        \cos\frac{\pi}{3}+i\sin\frac{\pi}{3} | \frac{1+\sqrt3 i}{2}
        \sqrt{-1} | i
        i^{10} | -1
        2 + i\sqrt{5}, 2 - i\sqrt{5} | 2 \pm i\sqrt{5}
        \{i, -i\} | \pm i
        \ln(-1) | i\pi
        11001_2 | 11001_{two}
        77_8 | 77_{\text{eight}}
        (1011)_2 | 1011_2
        1011_{(2)} | 1011_2
        1011_2 | 1011 \text{ base } 2
        1011 base 2 | 1011_2
        255_{10} | 255
        x_{1} | x_1
        P_{\text{avg}} | P_{avg}
        a_{i,j} | a_{i, j}
        V_{\mathrm{in}} | V_{in}
        75\% | \frac{3}{4}
        0.75 | 75\%
        75 percent | 75
        75 \text{ per cent} | 75\%
        33\frac{1}{3}\% | \frac{1}{3}
        33 1/3 % | \frac13
        12\tfrac12\% | 12.5\%
        1{,}250\% | 1250
        2,5\% | 2.5\%
        50\% \text{ or } \frac12 | \frac12
        x\in[2,5] | 2\le x\le5
        2 \leqslant x \leqslant 5 | [2,5]
        [2; 5] | [2,5]
        x > 5 \text{ or } x < -5 | (-\infty,-5) \cup (5, \infty)
        x \in \mathbb{R}\setminus\{1,2\} | x \neq 1, 2
        x \ne 1 \text{ and } x \ne 2 | x \neq 1, x\neq 2
        (-\infty,1)\cup(1,\infty) | \mathbb{R} - \{1\}
        (-\infty,1)\cup(1,\infty) | \mathbb{R} \backslash \{1\}
        \text{all real numbers except } 1 | x \ne 1
        n > 3 | n > 3.0
        0 \leq x | x \geq 0
        [0,\infty) | x\ge0
        (0, 1) \cup (1, \infty) | x > 0, x \ne 1
        -1\le\sin x\le1 | -1 \leq \sin x \leq 1
        (−∞, 3) | x<3
        (-∞, 3] | x ≤ 3
        60 ^\circ | 60
        60^{\circ}, 120^{\circ} | 120, 60
        \alpha = 60^\circ, \beta = 30^\circ | \alpha=60, \beta=30
        \frac{180^\circ}{7} | \frac{180}{7}
        \left(\frac{360}{7}\right)^\circ | \frac{360}{7}
        180^\circ - 60^\circ | 120^\circ
        37.5^{\circ} | 37\frac12
        -20^\circ\text{C} | -20
        1.8^{\circ} \mathrm{C} / \mathrm{h} | 1.8
        9.8 m/s^2 | 9.8 \text{ m/s}^2
        9.8\,\text{m}\cdot\text{s}^{-2} | 9.8\ \mathrm{m/s^2}
        9.8\,\mathrm{m\,s^{-2}} | 9.8\ \mathrm{m/s^2}
        6.63 \times 10^{-34} \text{ J}\cdot\text{s} | 6.63e-34
        5 \text{ N/m} | 5
        5 \text{ km}^2 | 5
        5 km² | 5 \text{ km}^2
        1{,}000 \text{ m} | 1 \text{ km}
        250 \text{ mL} | 0.25 \text{ L}
        3 \text{ days} | 72 \text{ hours}
        36 \text{ inches} | 3 \text{ feet}
        \frac{1}{2} \text{ mile} | 0.5
        10 \text{ miles/hour} | 10 \text{ mph}
        10 miles per hour | 10
        \$1.5\text{ million} | \$1,500,000
        20 dollars | \$20
        20 cents | \$0.20
        \$20.00 | 20
        20.00 dollars | 20
        30 people | 30
        30 \text{ people} | 30
        6 \text{ red balls} | 6
        12 \text{ possible values} | 12
        2\pi \text{ radians} | 2\pi
        2\pi | 2\pi \text{ rad}
        16\pi \text{ square inches} | 16\pi
        16\pi \text{ in}^2 | 16\pi
        4\sqrt{3} cm | 4\sqrt3
        4\sqrt{3} cm^2 | 4\sqrt3
        (5 \text{ cm}, 3 \text{ cm}) | (5,3)
        5 \text{ cm and } 3 \text{ cm} | 5, 3
        5 cm, 3 cm | 5,3
        5 \text{ cm} | 5\text{ centimeters}
        7 a.m. | 7
        12 \text{ noon} | 12
        5:30 pm | 5:30
        (sqrt(5)-1)/2 | \frac{\sqrt5-1}{2}
        sqrt(x)/2 | \frac{\sqrt{x}}{2}
        sqrt(2/3) | \sqrt{\frac23}
        -sqrt(3)/2 | -\frac{\sqrt3}{2}
        cbrt(2) | \sqrt[3]{2}
        exp(-x**2/2) | e^{-x^2/2}
        log(2) | \ln 2
        log2(8) | 3
        log10(x) | \log_{10} x
        x^2*y | x^2y
        2*x*(x+1) | 2x(x+1)
        1/(x+1) | \frac{1}{x+1}
        3/4*pi | \frac{3\pi}{4}
        (pi^2)/6 | \frac{\pi^2}{6}
        np.exp(-1) | e^{-1}
        np.sqrt(2)*np.pi | \sqrt2\pi
        math.pi | \pi
        math.log(2) | \ln2
        e^(-x) | e^{-x}
        2^n - 1 | 2^{n}-1
        2^(n-1) | 2^{n-1}
        n(n+1)/2 | \frac{n(n+1)}{2}
        n*(n+1)/2 | \frac{n(n+1)}{2}
        (n choose 2) | \binom{n}{2}
        theta | \theta
        alpha+beta | \alpha+\beta
        Delta | \Delta
        4π | 4\pi
        3π/4 | \frac{3\pi}{4}
        √(2)/2 | \frac{\sqrt2}{2}
        1/√2 | \frac{1}{\sqrt2}
        2³ | 8
        x₁ + x₂ | x_1+x_2
        a ≠ b | a \ne b
        ≈ 3.14 | 3.14
        1 ± √2 | 1\pm\sqrt2
        90˚ | 90
        5∛2 | 5\sqrt[3]{2}
        ½π | \frac\pi2
        3⅓ | \frac{10}{3}
        10⁶ | 1000000
        “5” | 5
        5＋3 | 8
        e^{iπ} | -1
        ∫ | \int
        [1, ∞) | [1,\infty)
        A ∪ B | A \cup B
        \sqrt{x}\sqrt{y} | \sqrt{xy}
        \frac{\sqrt{x}}{x} | \frac{1}{\sqrt{x}}
        \ln\frac{x}{y} | \ln x-\ln y
        \ln x^3 | 3\ln x
        \frac12\ln(x^2) | \ln x
        \log_a b | \frac{\ln b}{\ln a}
        \log_{4} 8 | \frac32
        (a^2b)^{1/2} | a\sqrt b
        \sqrt{a^2+2ab+b^2} | a+b
        \left(\frac{a}{b}\right)^{-1/2} | \sqrt{\frac{b}{a}}
        e^{\ln 3} | 3
        2^{\log_2 5} | 5
        \sqrt[6]{x^3} | \sqrt{x}
        \ln(e^2) | 2
        \ln 8 | 3\ln 2
        \frac{\ln 8}{\ln 2} | 3
        \log 100 | 2
        \sqrt{50} | 5\sqrt{2}
        \sqrt{12}+\sqrt{27} | 5\sqrt3
        \frac{1}{\sqrt5-2} | \sqrt5+2
        \sqrt{6+4\sqrt2} | 2+\sqrt2
        2\frac 12 | 2.5
        2 \frac{1}{2} | 2.5
        2+\frac12 | 2.5
        1 \frac{3}{4} \text{ cups} | 1.75
        1 3/4 cups | 1.75
        0.\overline{81} | \frac{9}{11}
        0.8\overline{3} | \frac56
        0.\overline{9} | 1
        5.\overline{27} | \frac{58}{11}
        0.12\overline{3} | \frac{37}{300}
        0.1666... | \frac16
        0.(142857) | \frac17
        -1.\overline{3} | -\frac43
        \frac{2mg}{k} | 2mg/k
        v_0\cos\theta | v_{0} \cos \theta
        \sqrt{v_0^2+2gh} | (v_0^2 + 2gh)^{1/2}
        \frac{1}{2}kx^2 | \frac{k x^{2}}{2}
        -\frac{GMm}{2a} | -G M m /(2 a)
        \frac{q}{4\pi\varepsilon_0 r^2} | \frac{q}{4 \pi \epsilon_{0} r^{2}}
        \frac{\lambda}{2\pi\epsilon_0 r}\hat{r} | \hat{r} \frac{\lambda}{2\pi\epsilon_0 r}
        \frac{nRT}{V} | n R T / V
        e^{-E/(k_B T)} | e^{-\frac{E}{k_{B} T}}
        \frac{h c}{\lambda} | hc/\lambda
        \frac{1}{\sqrt{1-v^2/c^2}} | \left(1-\frac{v^2}{c^2}\right)^{-1/2}
        A\cos(\omega t+\phi) | A \cos (\phi + \omega t)
        A\sin(\omega t) | A\cos(\omega t - \pi/2)
        \frac{1}{s(s+1)} | \frac{1}{s}-\frac{1}{s+1}
        \frac{s}{s^2+\omega^2} | \frac{s}{\omega^{2}+s^{2}}
        x(t) = e^{-t} | e^{-t}
        x(t)=C_1e^{-t}+C_2e^{-2t} | C_{1} e^{-t}+C_{2} e^{-2 t}
        y = Ce^{-x^2} | C e^{-x^2}
        y(x) = C e^{x} | y = Ce^x
        -i\cot(a\rho) | \frac{\cot(a \rho)}{i}
        \frac{4A}{3+3i}e^{it} | \frac{4A(1-i)}{6}e^{it}
        \sqrt{2}\cos(2t-\pi/4) | \cos 2t + \sin 2t
        \tan(x+y) | \frac{\tan x+\tan y}{1-\tan x\tan y}
        2\cos^2 x - 1 | \cos 2x
        (x+y)^3 | x^3+3x^2y+3xy^2+y^3
        \frac{x^3-1}{x-1} | x^2+x+1
        \frac{1}{n}-\frac{1}{n+1} | \frac{1}{n(n+1)}
        n^2+n+1 | n(n+1)+1
        2^{2n} | 4^n
        3\cdot 2^{n-1} | \frac{3\cdot2^n}{2}
        \frac{(2n)!}{n!n!} | \binom{2n}{n}
        (n-1)! | \frac{n!}{n}
        \left\lceil \frac{n}{2}\right\rceil | \lceil n/2\rceil
        \lfloor \sqrt{n} \rfloor | \left\lfloor \sqrt n \right\rfloor
        \max(a,b) | \max(b,a)
        \sum_{i=1}^{n} i^2 | \frac{n(n+1)(2n+1)}{6}
        \sum_{i=0}^{n-1} 2^i | 2^n-1
        \prod_{k=1}^{n} k | n!
        \gcd(a,b)=1 | \gcd(b,a)=1
        p^{a}q^{b} | q^b p^a
        \frac{ab}{a+b} | \frac{1}{1/a+1/b}
        -x-1 | -(x+1)
        2 - x | -x+2
        \frac{x}{y} | x/y
        x = \frac{1}{2} | x = 0.5
        x=1, y=2, z=3 | (x,y,z)=(1,2,3)
        z=3, y=2, x=1 | x=1,y=2,z=3
        \{(1,2)\} | (1,2)
        \left\{ 1, 2, 3 \right\} | \{1,2,3\}
        1,2,3, | 1,2,3
        1, 2, \text{ and } 3 | 1,2,3
        1, 2 or 3 | 1,2,3
        -1, 1 | \{\pm1\}
        \pm \frac{\sqrt2}{2} | -\frac{1}{\sqrt2},\frac{1}{\sqrt2}
        x=-1 \pm \sqrt{2} | -1+\sqrt2, -1-\sqrt2
        3 \pm 2\sqrt2 | 3\mp2\sqrt2
        (a,b) = (1,2) \text{ or } (2,1) | (1,2),(2,1)
        (1,2);(2,1) | (2,1),(1,2)
        \left( \frac{1}{2}, -1 \right) | (0.5,-1)
        2\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 2 \\ 4 \end{pmatrix}
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}^T | \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}
        \begin{pmatrix} 1 & 1 \\ 0 & 1 \end{pmatrix}^3 | \begin{pmatrix} 1 & 3 \\ 0 & 1 \end{pmatrix}
        \begin{pmatrix} a & b \\ c & d \end{pmatrix} | \left(\begin{array}{cc} a & b \\ c & d \end{array}\right)
        \left[\begin{array}{c} 1 \\ 2 \end{array}\right] | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
        0.5x+1 | \frac{x}{2}+1
        1.5\pi | \frac{3\pi}{2}
        4.71238898 | \frac{3\pi}{2}
        1.41421356 | \sqrt2
        12.50 | 12.5
        \frac{25}{2} | 12.5
        5. | 5
        05 | 5
        +5 | 5
        --5 | 5
        1e3 | 1000
        5{.}5 | 5.5
        1.000.000 | 1000000
        -0.5 | -\frac12
        \frac{6}{4} | \frac32
        6:4 | 3:2
        3 : 2 | 1.5
        3 to 2 | 3:2
        3:2:1 | 6:4:2
        \frac{0.5}{2} | \frac14
        5 \cdot 10^{-2} | 0.05
        \sqrt{0.25} | \frac12
        0.1 + 0.2 | 0.3
        10^{10} | 10000000000
        1 \frac{1}{2} \times 10^3 | 1500
        \text{5.0 cm} | 5
        5 \textrm{ cm} | 5
        5 \rm{cm} | 5
        5 \mathrm{cm^2} | 5
        5\,\mathrm{cm}^{2} | 5 \text{ cm}^2
        5 \text{ } \mathrm{m} | 5
        \mathrm{5\,m} | 5
        9.8 \text{ms}^{-2} | 9.8
        9.8 ms^{-2} | 9.8
        9.8 m s^{-2} | 9.8 m/s^2
        5 \text{ m s}^{-1} | 5 \text{ m/s}
        5 \text{ m}\text{ s}^{-1} | 5 \text{ m/s}
        5 kg m/s | 5
        5 kg*m/s | 5 \text{ kg m/s}
        5 J/(kg K) | 5
        4.18 J/g | 4.18
        3e8 m/s | 3e8
        6.02e23 mol^-1 | 6.02e23
        10 degrees Celsius | 10
        10 ^\circ C | 10
        300 K | 300
        5 eV | 5
        1.5 keV | 1.5e3 eV
        2 years | 2
        24 months | 24
        30 min | 30
        30 min | 0.5 hours
        45 s | 45
        12 V | 12
        12 \text{ volts} | 12 V
        100 \Omega | 100
        100\,\Omega | 100 \text{ ohm}
        1 k\Omega | 1000 \Omega
        5 \mu F | 5
        5 \mu\text{F} | 5
        5 μF | 5
        5 µm | 5
        5 \text{ }\mu\text{m} | 5
        3 \text{ ft} | 3
        6 ft | 6
        6 feet | 72 inches
        10 percent | 10\%
        10 per cent | 10
        $10 | 10
        10$ | 10
        \$ 10 | 10
        10 \$ | 10
        10 \text{ USD} | \$10
        \pounds 10 | 10
        \pounds10 | 10
        10 yuan | 10
        ¥10 | 10
        10元 | 10
        5 \text{ cookies} | 5 cookies
        5 \text{ cookies} | 5
        \text{5 cookies} | 5 \text{ cookies}
        7 days a week | 7
        3 \text{ times} | 3
        3 times | 3
        $3$ times | 3
        about 5 | 5
        approximately 5 | 5
        \text{approximately } 5 | 5
        \text{about }5 \text{ cm} | 5
        roughly 5 | 5
        exactly 5 | 5
        5 (approx) | 5
        5 \text{ (approx.)} | 5
        \approx 5 \text{ cm} | 5
        x \approx 5 \text{ cm} | 5
        = 5 | 5
        : 5 | 5
        n=5 | n = 5
        n \text{ is } 5 | 5
        \text{Area}=5 | 5
        \text{Area} = 5 \text{ cm}^2 | 5
        A = 5 \text{ cm}^2 | 5
        \text{Total: } 5 | 5
        Total = 5 | 5
        \text{Answer: } 5 | 5
        \therefore 5 | 5
        Thus, 5 | 5
        5 \quad \text{(cm)} | 5
        5 \; (\text{cm}) | 5
        5 \,(\text{units}) | 5
        5\text{cm}/\text{s} | 5
        3.0 \times 10^{8}\frac{\text{m}}{\text{s}} | 3e8
        \frac{5}{2}\frac{\text{m}}{\text{s}} | 2.5
        \frac{1}{2} \text{ of the total} | \frac12
        \frac12 \text{ cup} | \frac12
        1.2 \text{ million people} | 1200000
        1.2 million dollars | 1200000
        \$1.2 million | \$1200000
        2 hundred | 200
        5 thousand | 5000
        3 \text{ billion} | 3\times10^9
        1.5 \times 10^6 | 1.5 \text{ million}
        AB = CD | AB=CD
        AB \parallel CD | AB\parallel CD
        \sqrt{ab} | \sqrt{ba}
        P(A\cup B) | P(A \cup B)
        \mathbb{Z}/2\mathbb{Z} | \mathbb{Z} / 2 \mathbb{Z}
        \emptyset | \{\}
        \varnothing | \text{empty set}
        \infty | +\infty
        \text{infinity} | \infty
        DNE | \text{does not exist}
        e | 2.718281828459045
        2e | 5.43656365691809
        \pi | 3.141592653589793
        \frac{\pi}{4} | 0.7853981633974483
        45 | 45.0
        45.00 | 45
        100\% | 100
        one | 1
        \text{two} | 2
        ten | 10
        \text{no real solutions} | no real solutions
        x^2\frac{1}{2} | \frac{x^2}{2}
        \log_2\frac{1}{8} | -3
        \sqrt2\frac12 | \frac{\sqrt2}{2}
        2^T | 4^{T/2}
        (1+r)^T | (r+1)^{T}
        e^{T} | e^T
        A^T | A^{\top}
        X^\top X | X^T X
        \begin{pmatrix}1&2\end{pmatrix}^\top | \begin{pmatrix}1\\2\end{pmatrix}
        \begin{pmatrix}1&2\end{pmatrix}^{\mathsf{T}} | \begin{pmatrix}1\\2\end{pmatrix}
        (1,2)^\top | \begin{pmatrix}1\\2\end{pmatrix}
        \log_{10}2 | \log_{10} 2
        \log_3 9 | 2
        \sqrt[3]2 | 2^{1/3}
        x^.5 | \sqrt{x}
        10^-3 | 0.001
        10^{-3} | 10^-3
        e^-2 | e^{-2}
        2^3^2 | 512
        x_1^2 | x_{1}^{2}
        x^2_1 | x_1^2
        \sin^2x | (\sin x)^2
        \sin x^2 | \sin(x^2)
        \sin^{-1}(x) | \arcsin x
        \log_b a^2 | 2\log_b a
    """,
    "units and moduli of statements": r"""
        x=5\text{ cm} | x=0.05\text{ m}
        v=5 \text{ m/s} | v=5
        v=5 | v=5 \text{ m/s}
        t = 120 \text{ min} | t = 2 \text{ h}
        n \equiv 0, 2 \pmod 3 | n\equiv 2,0 \pmod{3}
        n\equiv2\pmod5 | 2 \pmod 5
        x>5\text{ cm} | x>5
        5\text{ rad/s} | 5 \text{ s}^{-1}
        10 Hz | 10 \text{ s}^{-1}
        2 \text{ Gy} | 2 \text{ J/kg}
        41.5 \text{ mm} | 4.2 \text{ cm}\tolerance{0.1}
        4.25 | 4.2 \text{ cm}\tolerance{0.1}
        0.0425 | 4.2\%\tolerance{0.1}
        \pi \text{ rad} | 180^\circ
    """,
    "commas": r"""
        3, 125 | 3, 125
        125, 3 | 3, 125
        3,125 | 3, 125
        3,125 | 3125
        1,\!234 | 1234
        1,\! 234 | 1234
        1000,99 | 1000.99
        2,5\% | 2.5\%
    """,
    "letters and options": r"""
        a | A
        (e) | E
        B | \text{b}
        \text{c} | C
        (D) \frac12 | D
        (D) \frac12 | 0.5
        2a:2b | a:b
        (c)(d) | cd
        (a)/(b) | \frac ab
        (A)/(B) | \frac AB
        (c)+1 | c+1
        (B)x | Bx
    """,
    "branches": r"""
        \vert x-50\vert | |50-x|
        \max(x,100) | \max(100,x)
        \max(a,u) | \frac{a+u+|a-u|}{2}
        \sqrt{(x-30)^2} | |x-30|
        \min(x,y) | x+y-\max(x,y)
        2+3=5 | 5
        3^2 = 9 | 9
        x>1 \text{ and } x<2 | (1,2)
        x<1 \text{ or } x>2 | (-\infty,1)\cup(2,\infty)
        n=10 \text{ or } n=12 | 10, 12
        (x-1)(x-2)(x-3)<0 | (-\infty,1) \cup (2,3)
        x^3 > x | (-1,0) \cup (1,\infty)
        (x-1)(x-5)\ge0 | (-\infty,1]\cup[5,\infty)
        \frac{1}{x} < 1 | (-\infty,0)\cup(1,\infty)
        x^2 < 2 | (-\sqrt2,\sqrt2)
        \sqrt{x} \ge 2 | [4,\infty)
        h*nu | h\nu
        hbar*omega | \hbar\omega
        mu*m*g | \mu m g
    """,
    "chains": r"""
        x=\sqrt2\approx1.41 | \sqrt2
        x=\sqrt2\approx1.41 | x = \sqrt{2}
        x=\sqrt2\approx1.41 | 1.41
        x \approx 1.41 | 1.41
        \frac13\approx0.33 | \frac13
        \frac13 = 0.333 | \frac13
        \pi\approx3.14 | \pi
        2\pi \approx 6.28 \text{ cm} | 2\pi
        v=\sqrt{2gh}\approx4.4\text{ m/s} | \sqrt{2gh}
        v=\sqrt{2gh}\approx4.4\text{ m/s} | 4.4
        x = 1/3 = 0.333 | \frac13
        x = \sqrt{2000} \approx 45 | \sqrt{2000}
        \sqrt2 | \sqrt2\approx1.41
        \frac23 | \$\dfrac23 \approx \$0.67
        A = 1.5 \text{ h} = 90 \text{ min} | 90 \text{ min}
        E = 1.6\times10^{-19} \approx 1.602\times10^{-19} | 1.602\times10^{-19}
        e = \frac{\sqrt3}{2} \approx 0.866 | \frac{\sqrt3}{2}
        m+n = 2+3 = 5 | 5
    """,
    "spacing": r"""
        x\;y | xy
        2\;x | 2x
        x\ y | xy
        x\:y | xy
        x\>y | xy
        x \, y | xy
        \frac12\;x^2 | \frac12x^2
        e^x\ y | ye^x
        5\ m | 5 m
        5\;m | 5 m
        x=1,\ x=2 | x=1,x=2
        a\;b\;c | abc
        \pi\;r^2 | \pi r^2
        \sin\;x | \sin x
        3\:\pi\:R | 3\pi R
    """,
    "names of what is asked for": r"""
        f(10)=3 | 3
        f(2023)=5 | 5
        f(0.5)=5 | 5
        f(-1) = 2 | 2
        P(n+1) = 2n | 2n
        f'(10)=3 | 3
        5!=120 | 120
        \Vert v\Vert=5 | 5
        \|v\| = 5 | 5
        f(x+1)=x^2 | x^2
        dy/dx=2x | 2x
        dr/dt = \frac12 | \frac12
        \int_0^1x^2\,dx=\frac13 | \frac13
        \lim_{x\to0}\frac{\sin x}{x} = 1 | 1
        \sum_{k=1}^\infty2^{-k}=1 | 1
        i=\frac VR | \frac VR
        i=2 | 2
        i=2\text{ A} | 2
        e = 0.5 | 0.5
    """,
    "functions without brackets": r"""
        \sin\theta(1-\cos\theta) | (1-\cos\theta)\sin\theta
        \ln x(x+1) | (x+1)\ln x
        \sin x(1+x) | (1+x)\sin x
        \cos x e^x | e^x\cos x
        \sin 2x e^{-t} | e^{-t} \sin(2x)
        \cos 2\pi(x+1) | \cos(2\pi x)
        \sin 2x | 2 \sin x\cos x
        \sin xy | \sin(yx)
        \tan x [1+x] | (x+1)\tan x
        mu*m*g | \mu mg
        h*nu | h\nu
        hbar*omega | \hbar\omega
        xsin(x) | x\sin x
        2*xcos(x) | 2x\cos x
        asin(x) | \arcsin x
    """,
    "conditions": r"""
        \frac\pi4+k\pi, k\in\mathbb Z | \frac\pi4+k\pi
        2k\pi | 2k\pi, k\in\mathbb Z
        2k\pi, k\in\mathbb{Z} | 2k\pi, k \text{ is an integer}
        x = 2k\pi \ (k \in \mathbb{Z}) | x = 2\pi k
        x\ge0 | x\ge0, x\in\mathbb R
        2n+1, n \in \mathbb{N} | 2n+1
        2n+1, \text{ where } n \in \mathbb{N} | 2n+1
        a+b, \ a,b\in\mathbb{R} | b+a
        0<r<R | r\in(0,R)
        r\in(0,R) | 0<r<R
        x \in (a, b] | a < x \le b
    """,
    "telling words": r"""
        it is 5 | 5
        so the answer is 5 | 5
        the answer is $5$ | 5
        the total equals 12 | 12
        increases by 20% | 20%
        the answer is 5 apples | 5
        5 apple | 5 apples
        12 \text{ apples} | 12
        20\% \text{ increase} | 20\%
        20\% \text{ increase} | 20\% \text{ increases}
        10 \text{ north} | 10
        5 \text{ units} | 5
        5 \text{ or more} | 5 \text{ or more}
        ABC | \text{ABC}
        stop | \text{stop}
        AB | BA
        xyz | zyx
        AB\cdot C | ABC
    """,
    "sets and several solutions": r"""
        x\notin\{1,2\} | x\ne1,2
        x \notin (0,1) | x \le 0 \text{ or } x \ge 1
        x_1=1, x_2=2 | 2,1
        x_{1} = 3, x_{2} = -1 | \{-1, 3\}
        \{1,1,2\} | \{1,2\}
        \{1,2\} | \{2,1,2\}
        x<1 \lor x>2 | (-\infty,1)\cup(2,\infty)
        x>1 \land x<2 | (1,2)
        x < 1 \vee x > 2 | x<1 \text{ or } x>2
        \text{no solution} | \emptyset
        \text{None} | \varnothing
        \operatorname{cis}60^\circ | \frac{1+i\sqrt3}2
        2\operatorname{cis}\frac{\pi}{2} | 2i
        1AF_{16} | 1af_{16}
        101 \text{ (base 2)} | 101_2
        101 (base 2) | 101_2
    """,
    "units in parts": r"""
        2 \text{ h } 30\text{ min} | 2.5 \text{ h}
        2 hours 30 minutes | 150 minutes
        2 hours and 30 minutes | 2.5 hours
        5\text{ ft }3\text{ in} | 63\text{ in}
        3 \text{ m } 20 \text{ cm} | 3.2 \text{ m}
        12\text{ months} | 1\text{ year}
        27^\circ\text{C} | 300.15 K
        300.15 \text{ K} | 27^\circ\text{C}
        1.3\text{ \AA} | 1.3
        2 Å | 2 \text{ angstroms}
        2.0 M_\odot | 2.0
        5 R_\oplus | 5
        3 M_{\odot} | 3 M_\odot
        ₹500 | 500
        US\$5 | 5
        25 cm2 | 25
        3 m2 | 3 \text{ m}^2
        mgh\text{ J} | mgh
        \frac12 kx^2 \text{ J} | \frac12 kx^2
        5 m and 3 cm | 5 m, 3 cm
    """,
    "further chains": r"""
        AB = BC = 5 | 5
        F = ma = 10 \text{ N} | 10
        x = y = 0 | (0,0)
        \sum_{k=1}^{10} k = 55 | 55
        n = 2k+1, k \in \mathbb{Z} | n = 2k+1
        A = \pi r^2 = 4\pi | 4\pi
        F = ma = 10 \text{ N} | F = 10 \text{ N}
    """,
    "words around a number": r"""
        \text{about } 5 | 5
        \text{exactly } 5 | 5
        \text{The answer is } 5 | 5
        5 \text{ days per week} | 5
    """,
    "large and small decimals": r"""
        y = 3x + 1.0e-9 | 3x + 1e-9
        x > 8.43e7 | x > 84300000
        x^2 = 8.43e7 | 8.43 \times 10^7 = x^2
        y = 2.50e3 x + 1.0 | 2500x + 1
        x = 5.0e-7 t | 5.0 \times 10^{-7} t
        e^{-1.0e5 t} | e^{-100000t}
        \frac{6.67e-11 M}{r^2} | 6.67\times10^{-11}\frac{M}{r^2}
        x + 0.001 | x + \frac{1}{1000}
    """,
    "signs of logic": r"""
        p \land q | p \wedge q
        x = 1 \lor x = 2 | 1, 2
        x \ge 1 \wedge x \le 2 | [1,2]
    """,
    "units of pairs and percents": r"""
        (3, 4) \text{ cm} | (3,4)
        (3, 4) \text{ cm} | (3 \text{ cm}, 4 \text{ cm})
        \frac{1}{3} \approx 33.3\% | \frac13
        x \in \mathbb{R}, x \ne 3 | x \ne 3
        12\text{ cm}^2 | 12 \text{ square centimeters}
        -\frac12 = -0.5 | -0.5
        x = -\frac{1}{3} \approx -0.33 | -\frac13
        \cos^2\theta(1+\sin\theta) | (1+\sin\theta)\cos^2\theta
    """,
}

DIFFERENT = {
    "e-notation": r"""
        3.3e11 | 3.3e12
        3.3 \times 10^{12} | 3.3e-12
        -3.3e12 | 3.3e12
        3.4e12 | 3.3e12
        3.3 | 3.3e12
        10^{13} | 1e14
        1.39e-10 | 1.39e-11
        1.39\times 10^{-10}\text{ cm} | 1.39\times 10^{-10}\text{ m}
        1.4e-10 | 1.39e-10
        8.7 | 8.7e8
        12 | 3.3e12
    """,
    "case and symbols": r"""
        \frac{m}{M+m} | \frac{M}{m+M}
        R | r
        r/R | 1
        R/r | r/R
        \Delta | \delta
        \Omega | \omega
        N | n
        m+M | 2m
        T - t | 0
        \theta | \phi
        V | v
        x | y
        a+b | a+c
        2x | 2y
        g | G
        \frac{H}{h} | 1
        \hat{x} | x
        \bar{x} | x
        \mathcal{L} | L
        \sigma | \Sigma
        x' | x
        \psi | \Psi
        k | K
    """,
    "trailing variable": r"""
        2 | 2s
        2s | 2
        10t | 10
        10 | 10t
        5h | 5
        3c | 3
        3m | 3
        7d | 7
        4l | 4
        6g | 6
        mg | mgh
        mgh | mg
        v | vt
        \frac12 | \frac12 t
        \pi r^2 | \pi r^2 h
        x t | x
        a s | a
        2\pi | 2\pi r
        5x | 5
        3n | 3
        x^2 h | x^2
        \frac{c}{2} | \frac12
        e^{t} | e
        8 \sqrt{2} s | 8\sqrt{2}
        x = 2s | 2
    """,
    "tiny and large": r"""
        \frac{1}{2^{98}} | \frac{1}{2^{99}}
        2^{-100} | 0
        0 | 2^{-100}
        1e-20 | 1e-21
        \frac{1}{10^{12}} | \frac{1}{10^{13}}
        \frac{1}{7^{30}} | \frac{2}{7^{30}}
        1.6e-19 | 1.7e-19
        -2^{-60} | 2^{-60}
        2^{1000} | 2^{1001}
        2^{1000} | 2^{1000} + 1
        100! | 101!
        10^{20} | 10^{20} + 1
        6.6e-34 | 6.7e-34
        0 | 1e-30
        \frac{1}{30!} | \frac{1}{29!}
    """,
    "imaginary": r"""
        1+i | 1-i
        \frac{1}{1+i} | \frac{1+i}{2}
        i | 1
        2i | 2
        i | -i
        |3+4i| | 7
        3+4i | 4+3i
        e^{i\pi} | 1
        \sqrt{-4} | 2
        \sqrt{-4} | -2
        e^{ix} | e^{-ix}
        e^{x} | e^{ix}
        2i | 2j
        i\sqrt{3} | \sqrt{3}
        3+4i | 5
        5 | 3+4i
    """,
    "base": r"""
        52_8 | 52_{10}
        52_{10} | 52_8
        42_{10} | 52_8
        1011_2 | 1011_3
        11 | 1011_2
        101_2 | 1011_2
        2A_{16} | 2B_{16}
        52_7 | 52_8
        1011_{\text{three}} | 1011_2
        42 | 52_8
    """,
    "index": r"""
        I_0 | I_1
        v_{max} | v_{min}
        v | v_0
        m_1 | m_2
        x_1 + x_2 | x_1 + x_3
        E_{1} | E_{12}
        a_{n} | a_{n+1}
        T_1 T_2 | T_1^2
        \lambda_{red} | \lambda_{blue}
        v_{\text{i}} | v_{\text{f}}
        C_1 | C_2
        \frac{m_1}{m_2} | \frac{m_2}{m_1}
        r_0 | r
        k_{B} | k
    """,
    "percent": r"""
        5\% | 0.5
        5\% | 50
        12.5\% | 1.25
        0.5\% | 50\%
        50\% | 0.5\%
        7.41\% | 741
        25\% | 75\%
        10\% | -10\%
        \frac13\% | \frac13 \cdot 2
        2 | 200
        1\% | 1 \text{ cm} \cdot 3
    """,
    "interval": r"""
        [1,2) | (1,2)
        (1,2] | (1,2)
        [1,2] | (1,2)
        x \ge 1 | x > 1
        x > 1 | x < 1
        x \geq 1 | (1,\infty)
        1 \le x < 2 | [1,2]
        x \ne 2 | (-\infty,2)\cup[2,\infty)
        x \neq 2 | x \neq 3
        x \neq 2 | x = 2
        (1,2) | (1,3)
        (1,2) | 1 < x < 3
        (-\infty,1) | (1,\infty)
        (-\infty,1)\cup(2,\infty) | (1,2)
        |x| < 2 | (-2,2]
        |x| > 2 | (-2,2)
        x > 1 | y > 1
        x > 2 | 2
        x < 1 or x > 2 | (1,2)
        ]1,2[ | [1,2]
        [1,2] | [1,2[
        \{x : x \ge 3\} | (3,\infty)
        (0,1) | [0,1] \cup \{2\}
        [0,1)\cup(1,2] | [0,2]
        \mathbb{R} \setminus \{0\} | \mathbb{R}
        x > a | x > b
        -x > 3 | x > -3
        0 < x < 1 | 0 < x < 1.001
        (1,\infty) | [1,\infty)
        \{1,2\} | (1,2)
    """,
    "degrees": r"""
        60^\circ | 30^\circ
        -60^\circ | 60^\circ
        60 | 30°
        \sin 30^\circ | \frac{\sqrt3}{2}
        30^\circ, 150^\circ | 30^\circ
        60^\circ | \frac{\pi}{6}
        45^\circ | 45 \text{ cm}
        25^{\circ}\text{C} | 25^{\circ}\text{F}
        (2, 60^\circ) | (2, 30^\circ)
    """,
    "units": r"""
        5 \text{ cm} | 5 \text{ m}
        5 cm | 5 m
        5 \text{ m} | 5 \text{ m}^2
        5 \text{ m/s} | 5 \text{ km/h}
        5 \text{ kg} | 5 \text{ g}
        5 \text{ hours} | 5 \text{ minutes}
        5 \text{ cm} | 5 \text{ kg}
        \$5 | 5 \text{ cents}
        5 \text{ million} | 5 \text{ billion}
        5 million | 500000
        5 \text{ m} | 6
        6 \text{ m/s}^2 | 5 \text{ m/s}^2
        3:30 | 3:31
        3:30 \text{ a.m.} | 3:30 \text{ p.m.}
        1:00 | 12:00
        100 \text{ m} | 1 \text{ cm}
        9.8 \text{ m/s} | 9.8 \text{ m/s}^2
        12 \text{ inches} | 12 \text{ feet}
        -5 \text{ cm} | 5 \text{ cm}
        5 \text{ eV} | 5 \text{ J}
        2.5 \text{ thousand} | 2.5
    """,
    "programs and unicode": r"""
        pi/2 | \pi
        sqrt(2) | 2
        2√3 | 3√2
        √3 | 3
        x**2 | x^3
        exp(16) | e^{-16}
        ½ | 2
        x² | x
        −5 | 5
        2½ | 1
        sin(x) | cos(x)
        ∞ | -\infty
        arcsin(1/2) | \sin(1/2)
        ln(2) | \ln 3
        x ≤ 2 | x \ge 2
        2^(3) | 6
        np.arctan(2) | np.arctan(3)
    """,
    "roots and logarithms": r"""
        \sqrt{n} | n
        \sqrt{1/n} | \sqrt n
        \ln x^2 | (\ln x)^2
        \ln(a+b) | \ln a + \ln b
        \sqrt{a+b} | \sqrt a + \sqrt b
        \log_2 x | \ln x
        \log_{10} x | \ln x
        |x| | x
        \sqrt{x^2} | -x
        \sqrt[3]{x} | \sqrt{x}
        \ln 2 | -\ln 2
        \sqrt{17} | 4.123
        \sqrt{2} | 1.41
        x^{1/3} | x^{1/2}
    """,
    "loose LaTeX": r"""
        \sqrt(2) | 2
        4\sqrt(2) | 4
        \frac12 | 12
        \frac12 | 2
        \frac{1}{23} | \frac12 3
        10^-3 | 10^3
        10^-3 | 7
        x^10 | 10x
        1:2 | 2:1
        1:2 | 1:3
        \binom 52 | \binom 51
        1{,}234 | 1.234
        \frac{a}{b} | \frac{b}{a}
    """,
    "markup": r"""
        **73** | 37
        \textbf{73} | 7
        `73` | 72
        -73 | 73
        *7*3 | 73 \cdot 2
    """,
    "letters and words": r"""
        A | B
        (A) | B
        B. 5 | A
        A. 5 | B
        A or B | A
        A, B | A
        AB | A
        A | AC
        Option A | Option B
        true | false
        yes | no
        Yes | False
        even | odd
        \text{Monday} | \text{Tuesday}
        \text{no solution} | 0
        \text{five} | 6
        A, C | A, B
        no | yes
        \text{red} | \text{blue}
    """,
    "repeating and mixed": r"""
        0.333 | \frac13
        0.33 | \frac13
        0.\overline{3} | 0.3
        0.\overline{3} | \frac{3}{10}
        0.\overline{12} | 0.1\overline{2}
        0.1\overline{6} | 0.\overline{16}
        1 1/2 | 1/2
        1 1/2 | 11/2
        1\frac12 | \frac12
        2\frac12 | 1
        3\frac14 | \frac34
        -1\frac12 | -\frac12
    """,
    "sets and matrices": r"""
        (1,2) | (2,1)
        1,2 | 1
        1 | 1,2
        \{1,2\} | \{1,2,3\}
        1, 2, 3 | 1, 2, 4
        \{1,2\} | (1,2)
        (1,2),(3,4) | (1,2)
        (1,2),(3,4) | (2,1),(3,4)
        1 \pm \sqrt{2} | 1 + \sqrt{2}
        \pm 3 | 3
        3 | \pm 3
        \begin{pmatrix} 1 & 2 \end{pmatrix} | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}
        (1,2,3) | (1,2)
        x = 1, y = 2 | x = 2, y = 1
        (x,y)=(1,2) | (2,1)
        (1,2)^T | \begin{pmatrix} 2 \\ 1 \end{pmatrix}
        1, 1, 2 | 1, 2, 2
        \{1, 3\} | 13
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} | 2
        x=2, y=1 | (1,2)
    """,
    "formulas": r"""
        x = 5 | y = 5
        y = 2x+1 | y = 2x-1
        2x+1 | y = 2x
        2x - y = 0 | y = 2x+1
        f(x) = x | f(x) = -x
        f(x) = 2x | g(x) = 2x
        y' + y = 0 | y'' + y = 0
        \dot{x} = -kx | \dot{x} = kx
        x^2+y^2=4 | x^2+y^2=2
        (x+1)^2 | x^2+1
        \frac{n(n+1)}{2} | \frac{n(n-1)}{2}
        n! | (n+1)!
        \sin x | \cos x
        \sin^2 x | \sin x^2
        x+1 | x
        C_1 e^t + C_2 | C_1 e^t
        e^{x} | e^{-x}
        2^{n} | n^2
        (-1)^n | 1
        a^2 - b^2 | b^2 - a^2
        0 | x + y = 0
        a + b | 7 = a + b
        x = 3 | -3
        x^2 = 4 | 4x
        \frac{dy}{dx} | \frac{dx}{dy}
        \lfloor x \rfloor | x
        |x-1| | x-1
        \cos^{-1} x | \frac{1}{\cos x}
        x^2 + C | x^2
        2x = 10 | 10
        x = -5 | 5
        \sum_{k=1}^{n} k | \frac{n(n-1)}{2}
    """,
    "decimals": r"""
        0.3333 | \frac13
        3.14 | \pi
        3.1415 | \pi
        0.667 | \frac23
        1.41 | \sqrt2
        16386.20 | 16386.17
        1000001.0 | 1000000
        2.72 | e
        0.5 | 0.05
        12.5 | 12.6
        100 | 1000
        1,000 | 1
        0.0001 | 0.0002
        1.5 | 15
        73 | 37
        5 | -5
        1234.5 | 1234.6
    """,
    "further": r"""
        3.3 \times 10^{-12} | 3.3e12
        33e12 | 3.3e12
        \frac{GMm}{r} | G\frac{Mm}{r^{2}}
        \hbar | h
        I_0 e^{-t/RC} | I_{0} e^{-\frac{t}{R}}
        \dot x | \ddot x
        O(n) | O(n^2)
        t \in [0,1] | 0 \le x \le 1
        x \ge 3 or x \le -3 | (-\infty,-3)\cup(3,\infty)
        1 < a | a<1
        0.5 km | 50 m
        1 hour | 1 minute
        3 feet | 3 yards
        5 square meters | 5 meters
        x_1=2,x_2=3 | x_1=3, x_2=2
        a=2,b=3 | 3,2
        \left[ 2, 3 \right] | (2,3)
        x=2y | y=2x
        \frac{x^2}{4}+\frac{y^2}{9}=1 | 4x^2+9y^2=36
        (C) 12 | D
        C | CD
        C and D | C
        isosceles | equilateral
        0.666 | \frac23
        0.66 | \frac23
        \sin 30 | \sin 30^\circ
        \frac{2\pi}{3} | 60^\circ
        3^{100}-1 | 3^{100}+1
        2^{2024} | 4^{1011}
        x \equiv 3 \pmod{7} | x\equiv 4 \pmod 7
        3.3 \times 10^{9} \text{ J} | 3.3 \times 10^{12} \text{ J}
        e^{-3} | 1e-3
        2e^3 | 2e3
        \frac{1}{2^{99}} | 0
        1.00001e-19 | 1.1e-19
        2^{-98} | 2^{-98}+2^{-110}
        \frac{n}{N} | \frac{N}{n}
        \frac{m}{m+M} | \frac12
        Rr | r^2
        \ln X | \ln x
        \alpha | a
        \nu | v
        \rho | p
        \mu | u
        \Delta t | t
        \Delta x | \delta x
        t | 10
        5t | 5s
        2h | 2
        \frac{d}{2} | \frac12
        3l | 3
        x_0 t | x_0
        \omega t | \omega
        kT | k
        qV | q
        mc^2 | m
        2gh | 2g
        \sqrt{2gh} | \sqrt{2g}
        e^{at} | e^{a}
        4\pi r^2 h | 4\pi r^2
        \sqrt{-3} | \sqrt{3}
        1+2i | 2+i
        e^{i\theta} | e^{\theta}
        \cos\theta+i\sin\theta | e^{-i\theta}
        (1011)_2 | 1011_3
        FF_{16} | FE_{16}
        1011 | 1011_2
        a_{ij} | a_{ji}
        x_1 | x_2
        x_1 x_2 | x_1
        x^2 | x_2
        75\% | 7.5
        0.75\% | 75\%
        750\% | 75\%
        (-∞, 3) | x ≤ 3
        (2,5) | [2,5]
        2<x\le 5 | 2 \le x < 5
        x \ge 5 | x \le 5
        (2,5)\cup(7,9) | (2,5)
        x<1 \text{ and } x > 0 | x<1
        \{2,5\} | [2,5]
        2, 5 | [2,5]
        60^\circ | 60 \text{ cm}
        120^\circ | 60^\circ
        \cos 60 | \cos 60^\circ
        \sin 60^\circ | \cos 60^\circ
        5:30 pm | 5:30 am
        20 dollars | 20 cents
        3 \text{ days} | 3 \text{ hours}
        36 \text{ inches} | 36 \text{ feet}
        5 kg | 5 lb
        250 \text{ mL} | 250 \text{ L}
        5 \text{ m}^2 | 5 \text{ m}^3
        5 \text{ N} | 5 \text{ J}
        9.8 \text{ m/s}^2 | 9.8 \text{ m/s}
        10 \text{ Hz} | 10 \text{ kHz}
        5 \text{ million} | 5
        5 cm | 5.5 cm
        16\pi \text{ in}^2 | 16\pi \text{ in}^3
        2√2 | \sqrt2
        x₁ | x_2
        2³ | 6
        √(2)/2 | \frac12
        1/(x+1) | \frac1x+1
        exp(2) | 2
        3⅓ | 1
        \sqrt{x^2+y^2} | x+y
        \ln(x+y) | \ln x\ln y
        \ln x^2 | \ln^2 x
        \log_2 3 | \log_3 2
        \sqrt{2}\sqrt{x} | 2\sqrt x
        \sqrt{3} | 1.732
        e^{\ln x} | \ln x
        2 1/2 | 1
        2\frac12 | 2\frac13
        3 1/4 | \frac{31}{4}
        0.\overline{81} | 0.81
        0.8\overline{3} | 0.\overline{83}
        0.16 | \frac16
        0.17 | \frac16
        e^{-E/(k_B T)} | e^{-\frac{E T}{k_{B}}}
        A\cos(\omega t+\phi) | A \cos (\omega t-\phi)
        2\cos^2 x - 1 | \sin 2x
        \lfloor \sqrt{n} \rfloor | \sqrt{n}
        \lceil n/2 \rceil | \lfloor n/2 \rfloor
        \max(a,b) | \min(a,b)
        \sum_{i=1}^{n} i^2 | \frac{n(n+1)}{2}
        -x+1 | -(x+1)
        x-2 | 2-x
        x=1,y=3,z=2 | x=1,y=2,z=3
        (1,2,3) | (3,2,1)
        \{1,2\} | \{1,3\}
        \{1\} | \{1,2\}
        1,2,3 | 1,2
        (1,2),(2,1) | (1,2)
        \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} | \begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}
        \begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 2 \\ 1 \end{pmatrix}
        4.71 | \frac{3\pi}{2}
        1.4142 | \sqrt2
        3,14 | 314
        1,5 | 15
        1.5.2 | 1.52
        0 | 0.0001
        1 | 1.01
        99 | 100
        1/3 | 1/4
        \frac{1}{3} | 0.33
        3:2:1 | 3:1:2
        5 \text{ cm} | -5
        5 \text{ cookies} | 6 \text{ cookies}
        5 \text{ ft} | 5 \text{ in}
        300 K | 300 ^\circ C
        1.5 keV | 1.5 eV
        30 min | 30 hours
        5 V | 5 A
        1 k\Omega | 1 \Omega
        5 \mu m | 5 m
        5 \mu\text{m} | 5 \text{ mm}
        10 \text{ USD} | 10 \text{ EUR}
        1.2 million | 1.2 billion
        \$5 | €5
        5 \text{ m/s} | 5 \text{ m}
        6 feet | 6 inches
        x \ge 2 | x \le 2
        5x | x^5
        xy | x+y
        x/y | y/x
        x-y | y-x
        2^x | x^2
        \log x | \log y
        a_1 | a_2
        f(x) | g(x)
        x' | x''
        \dot{x} | x
        \vec{a}\cdot\vec{b} | \vec{a}\cdot\vec{c}
        \angle ABC | \angle ACB
        \triangle ABC | \triangle ABD
        AB | CD
        ABC | ACD
        AB = CD | AB = EF
        \overline{AB} | \overline{CD}
        \mathbb{Z} | \mathbb{R}
        \mathbb{Z}/2\mathbb{Z} | \mathbb{Z}/3\mathbb{Z}
        \emptyset | \{0\}
        \emptyset | 0
        \infty | -\infty
        \infty | 0
        \infty | 1
        \pi | 3
        e | 2
        e | \pi
        45.01 | 45
        \sqrt{x} | x
        \sqrt{2} | \sqrt[3]{2}
        \frac{1}{x} | x
        (x+1)^2 | x^2+1
        x^2-1 | (x-1)^2
        \sin(x) | x\sin
        \sin(x+y) | \sin x + \sin y
        e^{x+y} | e^x+e^y
        \tan x | \cot x
        \arcsin x | \frac{1}{\sin x}
        \ln(xy) | \ln x \ln y
        n^2 | n^3
        n! | n
        2n! | (2n)!
        \binom{n}{2} | \binom{n}{3}
        n(n-1) | n(n+1)
        2n | 2n+1
        2n-1 | 2n+1
        a+bi | a-bi
        -i | i
        2+3i | 3+2i
        (0,1) | (1,0)
        [0,1] | [1,0]
        x=1,y=2 | x=1,z=2
        x=1 | x=2
        x=1 | x=-1
        x=1 | y=1
        1 | 2
        one | 2
        True | 1
        yes | 1
        A | 1
        \text{odd} | 1
        Monday | 1
        \text{none} | 0
        no solution | \emptyset \cup \{1\}
        \text{no real solutions} | 1
        1 \text{ or } 2 | 1
        1 \text{ or } 2 | 2
        1 | 1 \text{ or } 2
        1,2 | 1,2,2
        12 | 1,2
        1.2 | 1,2
        1,234 | 1,235
        1,234 | 1.234
        1234 | 123
        0.1 | 0.01
        10^2 | 10^3
        10^{-2} | 10^2
        \frac{1}{100} | 0.1
        1\frac{1}{2} | 1\frac{1}{3}
        1:2 | 1:4
        12:30 | 12:31
        x:y | y:x
        50\% | \frac{1}{3}
        \$50 | \$51
        50^\circ | 40^\circ
        10 cm | 10 km
        10 kg | 10 km
        2 \times 3 | 5
        2 + 3 | 6
        (2)(3) | 23
        2(x+1) | 2x+1
        -(x+1) | -x+1
        \frac{x+1}{2} | x+\frac12
        \frac{1}{x+1} | \frac1x+1
        x^{1/2} | x/2
        \sqrt{x+1} | \sqrt{x}+1
        \sqrt{x}+1 | \sqrt{x+1}
        \lfloor x\rfloor | \lceil x\rceil
        \max(x,y) | \min(x,y)
        \sum_{k=1}^n k | \sum_{k=1}^n k^2
        \int_0^1 x dx | \int_0^2 x dx
        \lim_{x\to0} x | \lim_{x\to1} x
        \frac{dy}{dx} | \frac{dx}{dt}
        \frac{\partial f}{\partial x} | \frac{\partial f}{\partial y}
        \begin{pmatrix}1&0\\0&1\end{pmatrix} | 1
        \begin{pmatrix}1\\2\\3\end{pmatrix} | (3,2,1)
        1011_2 | 1011
        x_{10} | x
        C | C_1
        C_1 | 1
        a^b | b^a
        ab | a^b
        P | p
        \Lambda | \lambda
        \ell | l
        \epsilon | e
        \phi | \psi
        x^2\frac{1}{2} | x^{5/2}
        A^T | A
    """,
    "units and moduli of statements": r"""
        v=5\text{ m/s} | v=5\text{ km/h}
        x=5\text{ cm} | x=5\text{ m}
        t=2 h | t=2 min
        F = 3 \text{ kN} | F = 3 \text{ N}
        m = 4 kg | m = 4 g
        x=5 cm, y=2 cm | x=5 m, y=2 m
        x = 5\text{ cm}, y = 2\text{ m} | x = 5\text{ cm}, y = 2\text{ cm}
        n\equiv2\pmod5 | n\equiv2\pmod6
        n \equiv 2 (mod 7) | n\equiv2\pmod{9}
        n\equiv 0,2\pmod3 | n \equiv 0,2(\bmod 6)
        x>5\text{ cm} | x>5\text{ m}
        5 < x < 6 \text{ cm} | 5<x<6 \text{ m}
        d \le 3 \text{ km} | d \le 3 \text{ m}
        n \bmod 2 | n
        n \bmod 2 | 2
        5\text{ rad/s} | 5\text{ Hz}
        3 Hz | 3 Bq
        5\text{ Sv} | 5\text{ Gy}
        52 \text{ mm} | 4.2 \text{ cm}\tolerance{0.1}
        4.5 \text{ mm} | 4.2 \text{ cm}\tolerance{0.5}
        0.05 | 4.2\%\tolerance{0.1}
        0.06 | 4.2\%\tolerance{0.1}
    """,
    "commas": r"""
        81256 | 81, 256
        3125 | 3, 125
        3, 125 | 3125
        2, 300, 400 | 2300400
        -3, 100 | -3100
        1, 234 | 1234
        153370371407 | 153, 370, 371, 407
        $3, 125$ | 3125
        11.13 | 11,13
        69.84 | 69,84
        12,15 | 12.15
        3,5 | 3.5
        3,14 | 3.14
        0,5 | 0.5
        5,0 | 5
    """,
    "letters and options": r"""
        E | e
        e | E
        A | a
        D | d
        C | c
        A and C | a and c
        a | a:b
        A:B | a:b
        a | A:B
        (a)^2 | a
        (A)^2 | A
        (a)/(b) | a
        (A)/(B) | A
        (a)(b) | a
        (A)(B) | A
        a | (a)(x+1)
        (b)x | x
        (B)x | x
        (a)5 | 5
        (B) x | x
        (C)(x+1) | x+1
    """,
    "branches": r"""
        \vert x-50\vert | 50-x
        \vert x-50\vert | x-50
        |x - 3000| | 3000-x
        \max(x,100) | 100
        \max(x,100) | x
        \min(x,100) | x
        \min(x, -5) | -5
        \sqrt{(x-30)^2} | 30-x
        \sqrt{x^2-60x+900} | 30-x
        \max(a,u) | a
        \max(a,b,c) | \max(a,b)
        \min(p,q) | q
        \vert a-u\vert | a-u
        |a| + |b| | |a+b|
        2+2=5 | 5
        1=2 | 2
        3^2 = 6 | 6
        x<1 \text{ and } x>2 | (-\infty,1)\cup(2,\infty)
        x < -3 and x > 3 | x<-3 \text{ or } x>3
        n=10 \text{ or } m=12 | 10, 12
        a = 3 or b = 4 | 3, 4
        (x-1)(x-2)(x-3)<0 | (-\infty,1)
        x^3 > x | (1,\infty)
        (x-1)(x-5)>0 | (5,\infty)
        \frac{1}{x} < 1 | (1,\infty)
        h*nu | hun
        mu*g | mug
    """,
    "chains": r"""
        x=\sqrt2\approx1.73 | \sqrt2
        \frac13 = 0.4 | \frac13
        \frac13\approx0.35 | \frac13
        2+2=4=5 | 5
        \pi = 3 | \pi
        x = 5 = 6 | 5
        x = 2 = 5.0 \approx 5.1 \approx 5.2 | 5.1
        3x = 2y = 6 | 6
        2x = 10 = 10.0 | 10
        x = 3 \text{ m} = 3 \text{ cm} | 3 \text{ m}
    """,
    "spacing": r"""
        x\;y | x
        x\ y | x+y
        5\;5 | 55
        x\;2 | x^2
    """,
    "names of what is asked for": r"""
        f(10)=3 | 10
        x(x+1)=6 | 6
        f(10) = 3 | f(11) = 3
        5 != 120 | 120
        5!=12 | 12
        \int_0^1x^2\,dx=\frac13 | \frac12
        i = 2 | i
        dy/dx=2x | y = 2x
        2f(10) = 6 | 6
    """,
    "functions without brackets": r"""
        \sin x(1+x) | \sin(x+x^2)
        \ln x(x+1) | \ln(x^2+x)
        \cos x e^x | \cos(xe^x)
        xsin(x) | \sin x
        xsin(x) | \sin(x^2)
        xi*x | xix
    """,
    "conditions": r"""
        2k\pi, k\in\mathbb Z | k\pi, k\in\mathbb Z
        2k\pi, k\in\mathbb Z | 2k\pi, k\in\mathbb N
        x\ge0, x\in\mathbb Z | x\ge0, x\in\mathbb N
        0<r<R | r\in[0,R)
        0<s<R | r\in(0,R)
        x \in \mathbb{Z} | x \in \mathbb{N}
        2k, k\in\mathbb Z | 2
    """,
    "telling words": r"""
        greater than 5 | 5
        less than 10 | 10
        at least 5 | 5
        at most 12 | 12
        no more than 7 | 7
        5 does not work | 5
        the answer is not 5 | 5
        the answer is not $5$ | 5
        $x$ is greater than $5$ | 5
        the answer is 5 or more | 5
        the ratio is 3 to 5 | 5
        there are 3 solutions, 1, 2 and 5 | 5
        multiply by 5 | 5
        5 | (7 minutes and 5 seconds)
        increases by 20% | decreases by 20%
        decreases by $20\%$ | increases by $20\%$
        gain of 5 | loss of 5
        20\% \text{ increase} | 20\% \text{ decrease}
        10 \text{ north} | 10 \text{ south}
        10 \text{ m upward} | 10\text{ m downward}
        10 \text{ profit} | 10 \text{ loss}
        3 \text{ left} | 3\text{ right}
        5 \text{ more} | 5 \text{ less}
        12 \text{ apples} | 12 \text{ oranges}
        the answer is 5 apples | 5 oranges
        5 chickens | 5 rabbits
        5 red | 5 blue
        5 \text{ square units} | 5 \text{ units}
        8 \text{ cubic units} | 8 \text{ square units}
        5 \text{ or more} | 5
        5 or more | 5
        5 \text{ or less} | 5
        5 | 5 \text{ or fewer}
        CAB | ABC
        ACBD | ABCD
        \text{CAB} | ABC
        stop | pots
        tea time | team tie
    """,
    "sets and several solutions": r"""
        x\notin\{1,2\} | x = 1,2
        x\notin\{1,2\} | x\ne1
        a=1, b=2 | 2,1
        x_1=1, x_2=2 | x_1=2, x_2=1
        \{1,1,2\} | \{1,2,2,3\}
        1, 1, 2, 2 | 1, 2, 3
        x<1 \land x>2 | (-\infty,1)\cup(2,\infty)
        x<1 \lor x>2 | (1,2)
        \text{no solution} | \mathbb{R}
        5a_{2} | 5A_{2}
        101 \text{ (base 2)} | 101_3
    """,
    "units in parts": r"""
        2 \text{ h } 30\text{ min} | 2 \text{ h}
        2 hours 30 minutes | 30
        2 hours 30 minutes | 2.3 hours
        5\text{ ft }3\text{ in} | 53\text{ in}
        1 \text{ month} | 1\text{ year}
        27^\circ\text{C} | 27 K
        2 M_\odot | 2 R_\odot
        2 M_\odot | 2 M_\oplus
        ₹500 | €500
        25 cm2 | 25 cm
        mgh\text{ J} | mg
        mgh\text{ J} | mgh \text{ N}
    """,
    "further chains": r"""
        AB = BC = 5 | 6
        \sum_{k=1}^{10} k = 54 | 54
        \sum_{k=1}^{10} k = 54 | 55
        AB = 5, CD = 6 | 5
        F = ma = 10 \text{ N} | 10 \text{ J}
        x = 8.43 \times 10^7 | y = 8.43 \times 10^7
        x = -4.5e33 | x = 4.5e33
        x+y=5 \text{ m} | x+y=5\text{ cm}
        \cot x^{\cot x} > \tan x^{\tan x} | \frac12
    """,
    "words around a number": r"""
        \text{at least } 5 | 5
        \text{more than } 5 | 5
        \text{not } 5 | 5
        x \text{ is at least } 5 | 5
        \text{between } 3 \text{ and } 5 | 3, 5
        3 \text{ to } 5 | 5
        5 \text{ times } x | 5
        5 \text{ less than } x | 5
        5 \text{ squared} | 5
        5 \text{ factorial} | 5
        x = 5 \text{ if } y = 3 | 3
        \text{the square root of } 5 | 5
        the square of 5 | 5
        half of 5 | 5
        all multiples of 5 | 5
        x is a multiple of 5 | 5
        the result is divisible by 5 | 5
        the answer is between 3 and 5 | 5
        the answer is negative 5 | 5
        the answer is the square root of 5 | 5
    """,
    "large and small decimals": r"""
        y = 3x + 1.0e-9 | 3x + 2e-9
        x + 1.0e-9 | x + 2.0e-9
        x > 8.43e7 | x > 8.5e7
        x^2 = 8.43e7 | x^2 = 8.5e7
        x^2 + y^2 = 1.0e8 | x^2+2y^2=1.0e8
        y = 2x + 1.5e9 | y = 3x + 1.5e9
        2x + 1.5e9 | 3x + 1.5e9
        x^2 + 0.0000001 | x^2
    """,
    "signs of logic": r"""
        p \land q | p \lor q
        p \vee q | p \wedge q
        p \land q | p, q
        x > 1 \lor x < 2 | (1,2)
    """,
    "units of pairs and percents": r"""
        (3, 4) \text{ cm} | (3,4) \text{ m}
        3 \text{ cm}, 4 \text{ cm} | 3 \text{ m}, 4\text{ m}
        x = 30^\circ | x = 30 \text{ rad}
        \frac{1}{3} = 33\% = 0.5 | \frac13
        \frac13 \approx 34\% | \frac13
        x = 5, 000 | 5000
        C = 2\pi r \approx 6.28 r | 6.29 r
    """,
}


def pairs() -> list[tuple[str, str, str, bool]]:
    """(kind, answer, gold answer, whether they are equal)"""
    found = []
    for table, equal in ((EQUAL, True), (DIFFERENT, False)):
        for kind, lines in table.items():
            for line in filter(str.strip, lines.splitlines()):
                answer, gold = line.strip().split(" | ")
                found.append((kind, answer.strip(), gold.strip(), equal))
    return found
